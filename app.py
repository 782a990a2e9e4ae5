"""Serves the page; `--help` lists the options."""

from musepose.cli.app import main, parse
from musepose.cli.entry import run_script

__all__ = ["main", "parse"]

if __name__ == "__main__":
    run_script(main)
