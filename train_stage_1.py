"""First training stage: reference UNet, denoising UNet and pose guider, on pairs of frames.

accelerate launch train_stage_1.py --config configs/train_stage_1.yaml
accelerate launch train_stage_1.py --config my.yaml --resume latest solver.learning_rate=5e-6
"""

from musepose.cli.entry import run_script
from musepose.cli.train import main

if __name__ == "__main__":
    run_script(lambda: main("stage_1", __doc__))
