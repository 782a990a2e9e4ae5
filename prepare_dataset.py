"""Prepares a training data set from a folder of videos; `--help` lists the options."""

from musepose.utils import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # quietly, while the rest is imported

from musepose.cli.entry import run_script  # noqa: E402
from musepose.cli.prepare_dataset import main  # noqa: E402

if __name__ == "__main__":
    run_script(main)
