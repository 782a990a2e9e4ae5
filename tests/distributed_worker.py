"""The program that test_distributed_runner.py launches in several processes.

distributed_worker.py sample FOLDER   sample and render a video together; latents and pictures are in FOLDER then
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


def sample(folder: str) -> None:
    """N.npz has the latents, and what process N decodes of them, before rounding."""
    import numpy as np
    import torch
    from test_pipeline import SHORT, pipeline

    from musepose.inference.cases import Plan, make_job
    from musepose.inference.options import Settings
    from musepose.inference.record import with_records
    from musepose.inference.runner import render
    from musepose.inference.shared_job import render_together
    from musepose.media.video_reader import probe
    from musepose.utils.distributed import ProcessGroup

    made, folder = pipeline(), Path(folder)
    if "WORLD_SIZE" in os.environ:
        made.group = ProcessGroup.start(torch.device("cpu"))
    sampled, sample_latents = [], made.sample_latents
    made.sample_latents = lambda *inputs, **options: sampled.append(sample_latents(*inputs, **options)) or sampled[-1]
    decoded, decode = [], made.decode
    made.decode = lambda latents: decoded.append(decode(latents)) or decoded[-1]
    renamed = {"num_inference_steps": "steps"}
    settings = Settings(skip=0, **{renamed.get(name, name): value for name, value in SHORT.items()})
    job = make_job(folder / "ref.png", probe(folder / "poses.mp4"), settings, folder)
    job = with_records([job], settings, {})[0]
    if made.group.count == 1:
        render(job, settings, made)
    else:
        render_together(job, Plan(settings, {}, (job,)), made, made.group)
    pictures = np.concatenate([part.numpy() for part in decoded])
    np.savez(folder / f"{made.group.rank}.npz", latents=sampled[0].numpy(), pictures=pictures)
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
    from musepose.inference import distributed_runner

    dies = Path("dies").read_text() if Path("dies").exists() else ""
    stops = Path("stops").read_text() if Path("stops").exists() else ""
    rank = os.environ["RANK"]
    done = []

    def note(file: str, entry: object) -> None:
        with open(file, "a") as log:
            log.write(f"{rank} {entry}\n")

    look = distributed_runner.look

    def noted(video, pictures):
        note("looked", f"{video.stored.path.name} {pictures.start} {pictures.stop}")
        return look(video, pictures)

    distributed_runner.look = noted

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
                yield np.full((64, 64, 3), min(255, 20 * index), np.uint8)

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
