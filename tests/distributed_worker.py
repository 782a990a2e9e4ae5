"""The program that test_distributed_runner.py launches in several processes.

distributed_worker.py sample FILE     sample a video together; process 0 writes latents and pictures to FILE
distributed_worker.py fail EXCEPTION  process 1 raises it while the other waits for it
distributed_worker.py cases ARGS      test_stage_2.py with a pipeline that stands in for the models
"""

import atexit
import os
import sys
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from musepose.cli.entry import run_script  # noqa: E402


def sample(file: str) -> None:
    import numpy as np
    import torch
    from test_pipeline import SHORT, pipeline, poses, reference

    from musepose.utils.distributed import ProcessGroup

    made = pipeline()
    if "WORLD_SIZE" in os.environ:
        made.group = ProcessGroup.start(torch.device("cpu"))
    latents = made.sample_latents(reference(), poses(9), num_frames=9, **SHORT)
    pictures = np.stack(list(made.decode_stream(latents)))  # what `stream` does
    if made.group.rank == 0:
        np.savez(file, latents=latents.numpy(), pictures=pictures)
    made.group.close()


def fail(exception: str) -> None:
    import torch

    from musepose.utils.distributed import ProcessGroup

    group = ProcessGroup.start(torch.device("cpu"))
    if group.rank == 1:
        atexit.register(threading.Event().wait)  # what comes after the error waits for ever
        raise eval(exception)
    group.all_reduce(torch.zeros(1))


def mistake() -> None:
    """Rank 1 finds it long before rank 0."""
    from musepose.utils.errors import UserError

    time.sleep(os.environ["RANK"] == "0")
    raise UserError("a mistake: mend it")


def cases(arguments: list[str]) -> int:
    """The process whose number is in the file `dies` ends at its second case; the one in `stops` before it decodes."""
    import numpy as np

    import test_stage_2

    dies = Path("dies").read_text() if Path("dies").exists() else ""
    stops = Path("stops").read_text() if Path("stops").exists() else ""
    rank = os.environ["RANK"]
    done = []

    def note(file: str, entry: object) -> None:
        with open(file, "a") as log:
            log.write(f"{rank} {entry}\n")

    class Numbers:
        """Pictures whose grey is their number; the processes' numbers are in the files `log` and `decoded`."""

        def stream(self, image, pose_images, options, *, num_frames, progress):
            yield from self.decode_stream(self.sample_latents(image, pose_images, options, num_frames, progress))

        def sample_latents(self, image, pose_images, options, num_frames, progress):
            import torch  # not before: a process that has torch prints its input errors itself

            note("log", num_frames)
            if rank == dies and done:
                while not any(line.split()[0] != dies for line in Path("log").read_text().splitlines()):
                    time.sleep(0.01)  # until another one is at work
                os._exit(9)
            done.append(num_frames)
            return torch.arange(num_frames)[:, None, None, None]

        def decode_stream(self, latents):
            if rank == stops:
                while not list(Path("out").glob(".job-*comparison-0-6.part")):
                    time.sleep(0.01)  # until the other one has finished a stretch
                os._exit(9)
            for index in latents.flatten().tolist():
                note("decoded", index)
                yield np.full((64, 64, 3), 20 * index, np.uint8)

    return test_stage_2.main(arguments, lambda plan: Numbers())


if __name__ == "__main__":
    work, *rest = sys.argv[1:]
    run_script(
        {
            "sample": lambda: sample(*rest),
            "fail": lambda: fail(*rest),
            "mistake": mistake,
            "cases": lambda: cases(rest),
        }[work]
    )
