"""Renders the test cases of a YAML file; `--help` lists the options."""

from musepose.cli.entry import run_script
from musepose.cli.test_stage_2 import main

if __name__ == "__main__":
    run_script(main)
