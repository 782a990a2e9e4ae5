"""Prepares a training data set from a folder of videos; `--help` lists the options."""

from musepose.cli.entry import run_script
from musepose.cli.prepare_dataset import main

if __name__ == "__main__":
    run_script(main)
