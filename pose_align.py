"""Aligns the poses of a dance video to a reference picture; `--help` lists the options."""

from musepose.cli.entry import run_script
from musepose.cli.pose_align import main, parse

__all__ = ["main", "parse"]

if __name__ == "__main__":
    run_script(main)
