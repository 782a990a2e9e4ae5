"""Leaves out of a .tflite file what only unwanted outputs need: LiteRT runs every operator, wanted or not.

The file is a flatbuffer. Its tables are followed as the format's own documentation describes them (flatbuffers.dev,
"Internals"), with the field numbers of TensorFlow Lite's schema; its lists are shortened where they stand.
"""

import struct
from collections.abc import Iterable

# Numbers of the fields used: of the model, a subgraph, an operator.
SUBGRAPHS = 2
OUTPUTS, OPERATORS = 2, 3
OPERATOR_INPUTS, OPERATOR_OUTPUTS = 1, 2


def without_outputs(
    content: bytes,  # a .tflite file with one subgraph
    unwanted: Iterable[int],  # places in the list of its outputs
) -> bytes:
    """The same network without these outputs. The others keep their order and every bit of their values."""
    buffer = bytearray(content)
    (subgraph,) = _tables(buffer, _root(buffer), SUBGRAPHS)
    unwanted = set(unwanted)
    outputs = [tensor for place, tensor in enumerate(_numbers(buffer, subgraph, OUTPUTS)) if place not in unwanted]
    needed, kept = set(outputs), []
    for operator in reversed(_tables(buffer, subgraph, OPERATORS)):  # they stand in the order they run in
        if needed.intersection(_numbers(buffer, operator, OPERATOR_OUTPUTS)):
            needed.update(_numbers(buffer, operator, OPERATOR_INPUTS))
            kept.append(operator)
    _shorten(buffer, _vector(buffer, subgraph, OUTPUTS), outputs)
    start = _vector(buffer, subgraph, OPERATORS)
    places = range(start + 4, start + 4 + 4 * len(kept), 4)
    _shorten(buffer, start, [table - place for table, place in zip(reversed(kept), places, strict=True)])
    return bytes(buffer)


def _root(buffer: bytearray) -> int:
    return _uint(buffer, 0)


def _uint(buffer: bytearray, at: int) -> int:
    return struct.unpack_from("<I", buffer, at)[0]


def _vector(buffer: bytearray, table: int, field: int) -> int:
    """Where a table's field, a list, stands: its length, then its entries, all of four bytes."""
    fields = table - struct.unpack_from("<i", buffer, table)[0]
    offset = struct.unpack_from("<H", buffer, fields + 4 + 2 * field)[0]
    return table + offset + _uint(buffer, table + offset)


def _numbers(buffer: bytearray, table: int, field: int) -> tuple[int, ...]:
    start = _vector(buffer, table, field)
    return struct.unpack_from(f"<{_uint(buffer, start)}i", buffer, start + 4)


def _tables(buffer: bytearray, table: int, field: int) -> list[int]:
    """Where the tables of a list stand; each entry counts from its own place."""
    start = _vector(buffer, table, field)
    return [at + _uint(buffer, at) for at in range(start + 4, start + 4 + 4 * _uint(buffer, start), 4)]


def _shorten(buffer: bytearray, start: int, entries: list[int]) -> None:
    struct.pack_into(f"<{1 + len(entries)}i", buffer, start, len(entries), *entries)
