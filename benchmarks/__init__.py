"""Speed and memory benchmarks: `python -m benchmarks.run CASE …`; results in RESULTS.md."""
