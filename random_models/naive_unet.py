"""A naive second implementation of the denoising UNet, the reference for the real one's results and speed.

Each CFG branch and frame is computed separately, attention is a plain softmax, cross-attention is computed although it
is constant, reference keys and values are projected in every call, and an `if` separates the CFG branches. Only the
parameters are the real model's.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HEADS = 8


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int = HEADS) -> Tensor:
    """(n, c), (m, c), (m, c) → (n, c), one head at a time."""
    outputs = []
    for q, k, v in zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True):
        outputs.append(torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), dim=-1) @ v)
    return torch.cat(outputs, -1)


class NaiveUNet:
    """The UNet's computation on a state dict; no batch dimension inside."""

    def __init__(
        self,
        state: dict[str, Tensor],
        widths: list[int],
        layers: int,
        groups: int,
        norm_eps: float = 1e-5,
        heads: int = HEADS,  # of spatial attention
        motion_heads: int = HEADS,  # of temporal attention
    ):
        self.state, self.widths, self.layers, self.groups = state, widths, layers, groups
        self.norm_eps, self.heads, self.motion_heads = norm_eps, heads, motion_heads

    def has(self, name: str) -> bool:
        return any(key.startswith(name + ".") for key in self.state)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x[None], weight, self.state[f"{name}.bias"], stride, weight.shape[-1] // 2)[0]

    def group_norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        return F.group_norm(x[None], self.groups, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)[0]

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-5)

    def feed_forward(self, x: Tensor, name: str) -> Tensor:
        hidden, gate = self.linear(x, f"{name}.net.0.proj").chunk(2, -1)
        return self.linear(hidden * F.gelu(gate), f"{name}.net.2")

    def attend(self, x: Tensor, context: Tensor, name: str, heads: int = HEADS) -> Tensor:
        query, key, value = (self.linear(s, f"{name}.to_{k}") for s, k in ((x, "q"), (context, "k"), (context, "v")))
        return self.linear(attention(query, key, value, heads), f"{name}.to_out.0")

    def resnet(self, x: Tensor, temb: Tensor, name: str) -> Tensor:  # c h w
        hidden = self.conv(F.silu(self.group_norm(x, f"{name}.norm1", self.norm_eps)), f"{name}.conv1")
        hidden = hidden + self.linear(F.silu(temb), f"{name}.time_emb_proj")[:, None, None]
        hidden = self.conv(F.silu(self.group_norm(hidden, f"{name}.norm2", self.norm_eps)), f"{name}.conv2")
        return hidden + (self.conv(x, f"{name}.conv_shortcut") if self.has(f"{name}.conv_shortcut") else x)

    def spatial(self, x: Tensor, token: Tensor, reference: dict | None, name: str) -> Tensor:  # c h w
        hidden = self.conv(self.group_norm(x, f"{name}.norm", 1e-6), f"{name}.proj_in").flatten(1).T
        block = f"{name}.transformer_blocks.0"
        normed = self.layer_norm(hidden, f"{block}.norm1")
        seen = normed if reference is None else torch.cat([normed, reference[block]])
        hidden = hidden + self.attend(normed, seen, f"{block}.attn1", self.heads)
        hidden = hidden + self.attend(self.layer_norm(hidden, f"{block}.norm2"), token, f"{block}.attn2", self.heads)
        hidden = hidden + self.feed_forward(self.layer_norm(hidden, f"{block}.norm3"), f"{block}.ff")
        return x + self.conv(hidden.T.reshape(x.shape), f"{name}.proj_out")

    def temporal(self, frames: list[Tensor], name: str) -> list[Tensor]:
        name = f"{name}.temporal_transformer"
        shape = frames[0].shape
        hidden = [self.group_norm(x, f"{name}.norm", 1e-6).flatten(1).T for x in frames]
        hidden = torch.stack([self.linear(x, f"{name}.proj_in") for x in hidden], 1)  # pixels, frames, c
        block = f"{name}.transformer_blocks.0"
        pixels = []
        for x in hidden:
            for k in range(2):
                attention_name = f"{block}.attention_blocks.{k}"
                normed = self.layer_norm(x, f"{block}.norms.{k}") + self.positions(len(x), x.shape[-1], x.dtype)
                x = x + self.attend(normed, normed, attention_name, self.motion_heads)
            pixels.append(x + self.feed_forward(self.layer_norm(x, f"{block}.ff_norm"), f"{block}.ff"))
        out = self.linear(torch.stack(pixels), f"{name}.proj_out")
        return [x + out[:, i].T.reshape(shape) for i, x in enumerate(frames)]

    @staticmethod
    def positions(length: int, dim: int, dtype: torch.dtype) -> Tensor:
        return torch.tensor(
            [
                [(math.sin, math.cos)[c % 2](p / 10000 ** ((c - c % 2) / dim)) for c in range(dim)]
                for p in range(length)
            ],
            dtype=dtype,
        )

    def layer(self, frames: list[Tensor], temb, token, reference, block: str, index: int) -> list[Tensor]:
        frames = [self.resnet(x, temb, f"{block}.resnets.{index}") for x in frames]
        if self.has(f"{block}.attentions.{index}"):
            frames = [self.spatial(x, token, reference, f"{block}.attentions.{index}") for x in frames]
        if self.has(f"{block}.motion_modules.{index}"):
            frames = self.temporal(frames, f"{block}.motion_modules.{index}")
        return frames

    def branch(self, sample: Tensor, timestep: float, token: Tensor, reference: dict | None, pose: Tensor) -> Tensor:
        """One CFG branch: sample (f, c, h, w), token (1, d), reference {block: (n, c)} or None, pose (f, c, h, w)."""
        frequencies = torch.exp(-math.log(10000) * torch.arange(self.widths[0] // 2) / (self.widths[0] // 2))
        temb = torch.cat([torch.cos(timestep * frequencies), torch.sin(timestep * frequencies)])
        temb = temb.to(sample)
        temb = self.linear(F.silu(self.linear(temb, "time_embedding.linear_1")), "time_embedding.linear_2")
        rest = (temb, token, reference)

        frames = [self.conv(x, "conv_in") + p for x, p in zip(sample, pose, strict=True)]
        skips = [frames]
        for level in range(len(self.widths)):
            for index in range(self.layers):
                frames = self.layer(frames, *rest, f"down_blocks.{level}", index)
                skips.append(frames)
            if self.has(f"down_blocks.{level}.downsamplers"):
                frames = [self.conv(x, f"down_blocks.{level}.downsamplers.0.conv", 2) for x in frames]
                skips.append(frames)
        frames = self.layer(frames, *rest, "mid_block", 0)
        frames = self.layer(frames, *rest, "mid_block", 1)
        for level in range(len(self.widths)):
            for index in range(self.layers + 1):
                frames = [torch.cat([x, s]) for x, s in zip(frames, skips.pop(), strict=True)]
                frames = self.layer(frames, *rest, f"up_blocks.{level}", index)
            if self.has(f"up_blocks.{level}.upsamplers"):
                size = skips[-1][0].shape[-2:]
                frames = [F.interpolate(x[None], size, mode="nearest")[0] for x in frames]
                frames = [self.conv(x, f"up_blocks.{level}.upsamplers.0.conv") for x in frames]
        frames = [F.silu(self.group_norm(x, "conv_norm_out", self.norm_eps)) for x in frames]
        return torch.stack([self.conv(x, "conv_out") for x in frames])
