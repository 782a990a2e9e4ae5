"""Serves the page; `--help` lists the options."""

from musepose.utils import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # quietly, while the rest is imported

from musepose.cli.app import main, parse  # noqa: E402
from musepose.cli.entry import run_script  # noqa: E402

__all__ = ["main", "parse"]

if __name__ == "__main__":
    run_script(main)
