"""How a result was made: its settings and inputs, in the video file itself, by which the next run recognises it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musepose.inference.options import Settings
from musepose.media.containers import read_comment
from musepose.utils.errors import UserError
from musepose.utils.options import option_specs

if TYPE_CHECKING:
    from musepose.inference.cases import Job

KEY = "musepose"
# Settings that belong to the run, and those that a job states more exactly.
LEFT_OUT = {"output", "overwrite", "device", "vram", "split", "compile", "preset"}
LEFT_OUT |= {"width", "height", "size", "length", "fps", "no_audio"}
CONFIGS = ("config.json", "unet/config.json")  # of a model, in its folder
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
DIGITS = 16  # of a file's digest
CHUNK = 2**20  # bytes read at a time
BLOCKS, BLOCK = 64, 4096  # of a file that is sampled: number, bytes


def with_records(jobs: Iterable["Job"], settings: Settings, weights: Mapping[str, Path]) -> list["Job"]:
    """The jobs with JSON of all that their two videos depend on. Files count by content, not by name or time."""
    digest = cache(_digest)
    common = {name: value for name, value in vars(settings).items() if name not in LEFT_OUT}
    models = {name: "".join(map(digest, _files(path))) for name, path in weights.items()}
    recorded = []
    for job in jobs:
        facts = {"width": job.size[0], "height": job.size[1], "frames": job.frames, "rate": str(job.rate)}
        facts |= {"sound": job.audio is not None, **common}
        facts |= {"picture": digest(job.reference, True), "pose video": digest(job.pose.path, True), **models}
        recorded.append(replace(job, record=json.dumps({KEY: facts})))
    return recorded


def pictures_digest(record: str) -> str:
    """A digest of a job's record without its sound: of all that the pictures depend on."""
    facts = json.loads(record)[KEY] | {"sound": None}
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:DIGITS]


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of a result; None: it has none, as those of other programs and of earlier versions."""
    try:
        facts = json.loads(read_comment(path))[KEY]
    except (ValueError, KeyError, TypeError):
        return None
    return facts if isinstance(facts, dict) else None


def check_results(jobs: Iterable["Job"]) -> None:
    """Raises UserError: a file in the place of a result was made otherwise, or its other half is missing.

    A file without a record is taken for the result if it is finished.
    """
    for job in jobs:
        wanted = json.loads(job.record)[KEY]
        for path in (job.result, job.comparison):
            if not path.is_file():
                continue
            found = read_record(path)
            if found is None and not job.finished:
                raise UserError(f"{path} exists and tells no settings: move it, or replace it with --overwrite")
            if found is not None and (changes := _changes(found, wanted)):
                raise UserError(
                    f"{path} was made otherwise ({', '.join(changes)}): give another --output, "
                    "or replace it with --overwrite"
                )


def _changes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs, in words. A setting that the older record lacks had its default."""
    defaults = {one.name: one.default for one in option_specs(Settings)}
    changes = []
    for name in dict.fromkeys([*wanted, *found]):
        old, new = (facts.get(name, defaults.get(name)) for facts in (found, wanted))
        if old == new:
            continue
        is_file = isinstance(new, str) and name not in defaults and name != "rate"
        changes.append(f"other {name}" if is_file else f"{name} {old}, now {new}")
    return changes


def _files(path: Path) -> list[Path]:
    """A weight file; of a model's folder, its config and weight files."""
    if not path.is_dir():
        return [path]
    weights = sorted(file for file in path.iterdir() if file.suffix in WEIGHTS and file.name[0] != ".")
    return [file for file in (*(path / name for name in CONFIGS), *weights) if file.is_file()]


def _digest(path: Path, whole: bool = False) -> str:
    """Of a file's content; unless `whole`, of its size and of blocks all over it, as weights differ everywhere."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        digest = hashlib.sha256(str(size).encode())
        if whole:
            file.seek(0)
            while part := file.read(CHUNK):
                digest.update(part)
        else:
            for place in range(BLOCKS):
                file.seek(max(0, size - BLOCK) * place // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()[:DIGITS]
