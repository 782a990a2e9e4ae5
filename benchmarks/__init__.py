"""How fast and how lean it is: `python -m benchmarks.run CASE …`; results in RESULTS.md."""
