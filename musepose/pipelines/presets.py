"""Presets: settings of test_stage_2.py that trade exactness for speed, by name. Needs no torch.

docs/speed.md has the price of each, measured.
"""

from typing import Any

# Fields of inference.options.Settings. All presets have the same keys, so that each undoes any other.
EXACT: dict[str, Any] = {
    "steps": 20,
    "scheduler": "ddim",
    "spacing": 1.0,
    "guidance_start": 0.0,
    "guidance_stop": 1.0,
    "guidance_every": 1,
    "cache_interval": 1,
    "cache_branch": 0,
}
CACHED = {"spacing": 2.0, "cache_interval": 2, "cache_branch": 1}
PRESETS: dict[str, dict[str, Any]] = {
    "exact": EXACT,
    "fast": EXACT | CACHED | {"steps": 10, "scheduler": "dpm++"},
    "draft": EXACT | CACHED | {"steps": 6, "scheduler": "euler"},
}
