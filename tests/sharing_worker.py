"""What test_sharing.py starts by a launcher.

sharing_worker.py sample FILE     sample a video together; process 0 writes latents and pictures to FILE
sharing_worker.py cases ARGS      test_stage_2.py with a pipeline that stands in for the models
"""

import os
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from musepose.errors import run_script  # noqa: E402


def sample(file: str) -> None:
    import numpy as np
    import torch
    from test_pipeline import SHORT, pipeline, poses, reference

    from musepose.processes import Processes

    made = pipeline()
    if "WORLD_SIZE" in os.environ:
        made.processes = Processes.start(torch.device("cpu"))
    latents = made.sample(reference(), poses(9), **SHORT)
    pictures = np.stack(list(made.stream(reference(), poses(9), num_frames=9, **SHORT)))
    if made.processes.rank == 0:
        np.savez(file, latents=latents.numpy(), pictures=pictures)
    made.processes.finish()


def cases(arguments: list[str]) -> int:
    """A process whose number is in the file `dies` ends while it works on its second case."""
    import numpy as np

    import test_stage_2

    dies = Path("dies").read_text() if Path("dies").exists() else ""
    done = []

    class Numbers:
        """Pictures of one grey; the process's number is in the file `log`."""

        def stream(self, reference, pose_frames, *, width, height, num_frames, progress, **_):
            with open("log", "a") as log:
                log.write(f"{os.environ['RANK']} {num_frames}\n")
            if os.environ["RANK"] == dies and done:
                while not any(line.split()[0] != dies for line in Path("log").read_text().splitlines()):
                    time.sleep(0.01)  # until another one is at work
                os._exit(9)
            done.append(num_frames)
            for index in range(num_frames):
                yield np.full((height, width, 3), 100, np.uint8)
                progress("decoding", index + 1, num_frames)

    return test_stage_2.main(arguments, lambda plan: Numbers())


if __name__ == "__main__":
    work, *rest = sys.argv[1:]
    run_script(lambda: sample(*rest) if work == "sample" else cases(rest))
