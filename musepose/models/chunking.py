"""Chunked execution: lower peak memory, same output.

Spatial layers treat frames independently, temporal layers pixels, feed-forward layers positions: each can run in
chunks. Without gradients, values that are not needed again are overwritten.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

CPU_FEED_FORWARD = 1024  # positions a chunk on a CPU, whose cache then holds the hidden layer: up to 25 % faster


@dataclass(frozen=True)
class Chunks:
    """How a forward pass is divided into chunks."""

    tokens: int | None = None  # positions (frames x pixels) a chunk; None: all
    offload_skips: bool = False  # skip connections are offloaded to the CPU

    def rows(self, pictures: int, height: int, width: int) -> int:
        """Pictures a chunk, at least one."""
        if self.tokens is None:
            return pictures
        return max(1, min(pictures, self.tokens // (height * width)))


WHOLE = Chunks()


def spans(length: int, step: int, group: int | None = None) -> Iterator[slice]:
    """[0, length) in chunks of at most `step`; none crosses a multiple of `group`."""
    group = group or length
    for first in range(0, length, group):
        last = min(first + group, length)
        for start in range(first, last, step):
            yield slice(start, min(start + step, last))


def in_chunks(function: Callable[[slice], Tensor], length: int, step: int, group: int | None = None) -> Tensor:
    """Concatenate the results of `function` for each chunk of `length` rows (see `spans`)."""
    if step >= length:
        return function(slice(0, length))
    whole = None
    for rows in spans(length, step, group):
        part = function(rows)
        if whole is None:
            whole = part.new_empty(length, *part.shape[1:])
        whole[rows] = part
    return whole


def silu(x: Tensor) -> Tensor:
    """SiLU; without gradients in place."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y; without gradients in place."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def feed_forward(layer: FeedForward, x: Tensor) -> Tensor:
    """diffusers' GEGLU feed-forward (Shazeer 2020), (b, n, c) → the same."""
    if (
        torch.is_grad_enabled() or torch.compiler.is_compiling()
    ):  # a compiler fuses it, and chunks would fix its lengths
        return layer(x)
    project, _, out = layer.net
    flat = x.flatten(0, -2)

    def piece(rows: slice) -> Tensor:
        hidden, gate = project.proj(flat[rows]).chunk(2, dim=-1)
        return out(F.gelu(gate).mul_(hidden))

    step = CPU_FEED_FORWARD if x.device.type == "cpu" else len(flat)
    return in_chunks(piece, len(flat), step).view_as(x)


class Resnet(ResnetBlock2D):
    """diffusers' residual block as this UNet has it (`scale` 1, no dropout), with fewer passes over memory."""

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:  # n c h w; n c or 1 c
        hidden = self.conv1(silu(self.norm1(x)))
        hidden = add(hidden, self.time_emb_proj(F.silu(temb))[:, :, None, None])
        hidden = self.conv2(silu(self.norm2(hidden)))
        return add(hidden, x if self.conv_shortcut is None else self.conv_shortcut(x))
