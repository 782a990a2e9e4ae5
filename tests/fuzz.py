"""Mutates files with fixed seeds, and reads the mutants within limits of time and memory."""

from __future__ import annotations

import copy
import json
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from musepose.utils.errors import UserError, one_line

SECONDS = 60  # for one file: a thousand times what a mutant takes; only a hang takes longer
MEMORY = 3 << 30  # bytes of address space on top of what the process has
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)
# Values that replace any value of a JSON or YAML tree.
VALUES = (None, True, False, 0, 1, -1, 3, 2**31, 2**70, -(2**70), 0.5, -0.0, 1e308, float("inf"), float("nan"))
VALUES += ("", "a", "0", "-1", "1e999999999", "\0", "\ud800", "x" * 300, "../../..", "/dev/zero", "${oc.env:HOME}")
VALUES += ([], [[]], [None], [0], [-1, "a"], {}, {"a": 1}, {"": None})


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """One to four random edits: bits, bytes, numbers of the formats' kinds, cuts, insertions, moved blocks."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        at = chance.randrange(len(data))
        size = min(chance.choice((1, 4, 16, 256)), len(data) - at)
        match chance.randrange(8):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + size] = chance.randbytes(size)
            case 2:
                width, order = chance.choice((1, 2, 4, 8)), chance.choice(("little", "big"))
                number = chance.choice(NUMBERS) & ((1 << 8 * width) - 1)
                data[at : at + width] = number.to_bytes(width, order)
            case 3:
                del data[at:]
            case 4:
                del data[at : at + size]
            case 5:
                data[at:at] = chance.randbytes(size)
            case 6:
                block = data[at : at + size]
                other = chance.randrange(len(data))
                data[other:other] = block
            case 7:
                data[at : at + size] = bytes(size)
    return bytes(data)


def mutate_tree(tree: object, chance: random.Random) -> object:
    """A copy of a JSON-like tree in which one or two nodes are replaced, removed, doubled or renamed."""
    tree = [copy.deepcopy(tree)]
    for _ in range(chance.choice((1, 1, 2))):
        parent, key = chance.choice(list(_nodes(tree)))
        match chance.randrange(6) if isinstance(parent, dict) else chance.randrange(5):
            case 0 | 1 | 2:
                parent[key] = chance.choice(VALUES)
            case 3:
                parent[key] = [parent[key], copy.deepcopy(parent[key])]
            case 4 if parent is not tree:
                del parent[key]
            case 5:
                parent[chance.choice(("", "unknown", "x" * 300, "a.b", "${x}"))] = parent.pop(key)
            case _:
                parent[key] = {"a": parent[key]}
    return tree[0]


def _nodes(tree: list | dict) -> Iterator[tuple[list | dict, int | str]]:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(value, (list, dict)):
            yield from _nodes(value)


def byte_mutants(seeds: list[Path], count: int) -> Iterator[bytes]:
    chance, contents = random.Random(0), [seed.read_bytes() for seed in seeds]
    for number in range(count):
        yield mutate_bytes(contents[number % len(contents)], chance)


def tree_mutants(tree: object, count: int) -> Iterator[bytes]:
    chance = random.Random(0)
    for _ in range(count):
        yield json.dumps(mutate_tree(tree, chance)).encode()  # JSON is YAML


@contextmanager
def limits() -> Iterator[None]:
    """Stop a hang with an exception, and refuse memory beyond MEMORY."""

    def stop(*_: object) -> None:
        raise AssertionError(f"still at work after {SECONDS} seconds")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def read_all(mutants: Iterator[bytes], target: Path, read: Callable[[Path], object]) -> int:
    """Write each mutant to `target` and read it. → how many were read without an error.

    Fails, with the mutant's number, for any exception but a UserError that says what to do.
    """
    valid = 0
    with limits():
        for number, data in enumerate(mutants):
            target.write_bytes(data)
            signal.alarm(SECONDS)
            try:
                read(target)
                valid += 1
            except UserError as error:
                assert ": " in one_line(error), f"mutant {number}: {one_line(error)}"
            except Exception as error:
                kept = target.with_name(f"mutant-{number}-{target.name}")
                kept.write_bytes(data)
                pytest.fail(f"mutant {number}, kept as {kept}: {type(error).__name__}: {str(error)[:300]}")
            finally:
                signal.alarm(0)
    return valid
