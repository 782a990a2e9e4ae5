"""First training stage: reference UNet, denoising UNet and pose guider; `--help` lists the options."""

from musepose.utils import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # quietly, while the rest is imported

from functools import partial  # noqa: E402

from musepose.cli.entry import run_script  # noqa: E402
from musepose.cli.train import main  # noqa: E402

if __name__ == "__main__":
    run_script(partial(main, "stage_1"))
