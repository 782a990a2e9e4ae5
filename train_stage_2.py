"""Second training stage: the motion modules, on clips; all else stays as stage 1 left it.

accelerate launch train_stage_2.py --config configs/train_stage_2.yaml
accelerate launch train_stage_2.py --config my.yaml --resume latest data.n_sample_frames=24
"""

from musepose.cli.entry import run_script
from musepose.cli.train import main

if __name__ == "__main__":
    run_script(lambda: main("stage_2", __doc__))
