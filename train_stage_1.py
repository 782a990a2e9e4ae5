"""First training stage: reference UNet, denoising UNet and pose guider; `--help` lists the options."""

from functools import partial

from musepose.cli.entry import run_script
from musepose.cli.train import main

if __name__ == "__main__":
    run_script(partial(main, "stage_1"))
