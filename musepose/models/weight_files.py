"""The weight file of a diffusers or transformers folder: one file, a variant such as fp16, or shards."""

import json
import re
from pathlib import Path

from musepose.utils.errors import UserError, shown
from musepose.utils.files import require_file
from musepose.utils.published import replace_hint

SUFFIXES = (".safetensors", ".bin")
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
LAST_VARIANTS = ("non_ema",)  # taken only if there is nothing else


def find_weights(folder: Path, *stems: str) -> Path:
    """The weight file `stem`.safetensors or .bin in `folder`, else its index, a variant, a variant's index.

    If there is none, where the published one would be. Of several variants fp16 is taken, else the first by name.
    """
    for stem in stems:
        for suffix in SUFFIXES:
            for path in (folder / f"{stem}{suffix}", folder / f"{stem}{suffix}.index.json"):
                if path.is_file():
                    return path
    for stem in stems:
        for suffix in SUFFIXES:
            found = [p for p in folder.glob(f"{stem}.*{suffix}") if not SHARD.fullmatch(p.name)]
            found += [*folder.glob(f"{stem}{suffix}.index.*.json"), *folder.glob(f"{stem}.*{suffix}.index.json")]
            if found:
                return min(found, key=_preference)
            for shard in sorted(folder.glob(f"{stem}*-of-*{suffix}")):  # without an index
                if SHARD.fullmatch(shard.name):
                    return shard
    return folder / f"{stems[0]}.bin"


def _preference(path: Path) -> tuple[bool, bool, str]:
    return any(variant in path.name for variant in LAST_VARIANTS), ".fp16." not in path.name, path.name


def is_index(path: Path) -> bool:
    """Whether the name is that of an index of shards, or of one of several shards."""
    return ".index." in path.name and path.suffix == ".json" or bool(SHARD.fullmatch(path.name))


def shards_of(path: Path) -> list[Path]:
    """All files of the index, or the shard, `path`. Raises UserError: one is missing, or the index names no files."""
    match = SHARD.fullmatch(path.name)
    if match:
        count = int(match["count"])
        if not 0 < count < 10_000:
            raise UserError(f"{path}: its name says {count} parts: rename it")
        names = [f"{match['stem']}-{n:05}-of-{count:05}{match['suffix']}" for n in range(1, count + 1)]
    else:
        names = _names(path)
    hint = f"get all parts of {path.name}"
    return [require_file(path.with_name(name), hint) for name in names]


def _names(path: Path) -> list[str]:
    try:
        content = json.loads(require_file(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path} is no index of shards ({error}): {replace_hint(path)}") from error
    files = content.get("weight_map") if isinstance(content, dict) else None
    names = list(files.values()) if isinstance(files, dict) else []
    wrong = [name for name in names if not isinstance(name, str) or Path(name).name != name or name.endswith(".json")]
    if not names or wrong:
        given = f"names the file {shown(wrong[0])}, not one beside it" if wrong else "names no files"
        raise UserError(f"{path} {given}: {replace_hint(path)}")
    return list(dict.fromkeys(names))
