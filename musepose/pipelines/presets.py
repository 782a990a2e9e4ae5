"""Presets: settings of test_stage_2.py that trade exactness for speed, by name. Needs no torch.

docs/speed.md has the price of each, measured.
"""

from typing import Any

# Fields of inference.options.Settings. All presets have the same keys, so that each undoes any other.
PRESETS: dict[str, dict[str, Any]] = {
    "exact": {"steps": 20, "scheduler": "ddim", "guidance_every": 1, "cache_interval": 1, "cache_branch": 0},
    "fast": {"steps": 10, "scheduler": "unipc", "guidance_every": 2, "cache_interval": 1, "cache_branch": 0},
    "draft": {"steps": 6, "scheduler": "unipc", "guidance_every": 3, "cache_interval": 1, "cache_branch": 0},
}
