"""Time until the commands print their help or an input error."""

from benchmarks.measure import Table, median_times, peak_memory

COMMANDS = {
    "`test_stage_2.py --help`": (["test_stage_2.py", "--help"], 0),
    "`pose_align.py --help`": (["pose_align.py", "--help"], 0),
    "`test_stage_2.py -W 30`": (["test_stage_2.py", "-W", "30"], 2),
    "`test_stage_2.py --config nowhere.yaml`": (["test_stage_2.py", "--config", "nowhere.yaml"], 2),
    "`pose_align.py --vidfn nowhere.mp4`": (["pose_align.py", "--vidfn", "nowhere.mp4"], 2),
    "`python -c 'import torch, diffusers, transformers'`": (["-c", "import torch, diffusers, transformers"], 0),
}


def start_up() -> Table:
    """Help and input errors, which import no torch; the last row is the import time that this saves."""
    times = median_times(
        {name: lambda c=command: peak_memory(*c[:1], status=c[1]) for name, command in COMMANDS.items()}, 5
    )
    return Table("Start-up", ("command", "seconds"), [(name, seconds) for name, seconds in times.items()])
