"""Downloads the published weights, or checks them; `--help` lists the options."""

from musepose.cli.download_weights import main
from musepose.cli.entry import run_script

if __name__ == "__main__":
    run_script(main)
