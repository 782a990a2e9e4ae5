"""Aligns the poses of a dance video to a reference picture; `--help` lists the options."""

from musepose.utils import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # quietly, while the rest is imported

from musepose.cli.entry import run_script  # noqa: E402
from musepose.cli.pose_align import main, parse  # noqa: E402

__all__ = ["main", "parse"]

if __name__ == "__main__":
    run_script(main)
