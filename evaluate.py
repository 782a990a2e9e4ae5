"""Evaluates videos against ground truth, or puppet weights; `--help` lists the options."""

from musepose.cli.entry import run_script
from musepose.cli.evaluate import main

if __name__ == "__main__":
    run_script(main)
