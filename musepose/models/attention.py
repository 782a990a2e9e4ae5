"""The UNet's spatial and temporal transformers.

Frames live in the batch, `(b f) n c`; only the motion module unfolds `f`. Two values are constant over a sampling, and
`BlockContext` holds them. CLIP gives one token, and a softmax over one key is 1: cross-attention adds the same vector
at every position. And the reference keys and values are the same for every frame, window and step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from einops import rearrange, repeat
from torch import Tensor, nn

from musepose.models.chunking import add, feed_forward, spans

TRANSFORMER_NORM_EPS = 1e-6  # of a transformer's GroupNorm; the resnets have 1e-5
MAX_SEQUENCES = 65535  # in one call: the limit of some CUDA attention kernels
# In bfloat16 on a CPU, plain attention is faster than fused up to this many keys: without AMX, and with it.
CPU_PLAIN_KEYS, AMX_PLAIN_KEYS = 1024, 8


def fuses_bfloat16() -> bool:
    """Whether torch's fused attention runs in bfloat16: not on AVX-512 that ATEN_CPU_CAPABILITY forbids."""
    has_avx512 = getattr(torch.cpu, "_is_avx512_supported", lambda: False)
    return not has_avx512() or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def plain_keys() -> int:
    """The limit for this processor."""
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return AMX_PLAIN_KEYS if has_amx() and fuses_bfloat16() else CPU_PLAIN_KEYS


@dataclass(frozen=True)
class BlockContext:
    """What a spatial transformer block needs besides its input; constant over a sampling."""

    text: Tensor  # (b, c) output of the cross-attention with the CLIP token
    reference: tuple[Tensor, Tensor] | None = None  # keys, values: (r, n, c), for the last r of the b rows

    def row(self, index: int) -> "BlockContext":
        """The context of batch row `index` alone."""
        place = -1 if self.reference is None else index - (len(self.text) - len(self.reference[0]))
        reference = None if place < 0 else tuple(t[place : place + 1] for t in self.reference)
        return BlockContext(self.text[index : index + 1], reference)

    @staticmethod
    def join(parts: Sequence["BlockContext"]) -> "BlockContext":
        """The contexts of several batch rows as one; rows without a reference come first."""
        if len(parts) == 1:
            return parts[0]
        references = [part.reference for part in parts if part.reference is not None]
        reference = references[0] if references else None
        if len(references) > 1:
            reference = tuple(torch.cat(tensors) for tensors in zip(*references, strict=True))
        return BlockContext(torch.cat([part.text for part in parts]), reference)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017); projections are named as in diffusers' checkpoints."""

    def __init__(self, dim: int, heads: int, context_dim: int | None = None):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.plain_keys, self.fuses_bfloat16 = plain_keys(), fuses_bfloat16()

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Projected query (b, n, c), key and value (b, m, c) → (b, n, c), before the output projection."""
        query, key, value = (rearrange(x, "b n (h d) -> b h n d", h=self.heads) for x in (query, key, value))
        if query.device.type == "cpu" and query.dtype == torch.bfloat16:
            result = self._attend_bfloat16(query, key, value)
        else:
            result = F.scaled_dot_product_attention(query, key, value)
        return rearrange(result, "b h n d -> b n (h d)")

    def _attend_bfloat16(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """On a CPU: the fused kernel is slower at small sizes, up to four times; its backward pass at all of them."""
        trains = torch.is_grad_enabled() and query.requires_grad
        if key.shape[2] <= (CPU_PLAIN_KEYS if trains else self.plain_keys):
            weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(dim=-1)
            return weights.to(value.dtype) @ value
        if not trains and self.fuses_bfloat16:
            return F.scaled_dot_product_attention(query, key, value)
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)


class SpatialBlock(nn.Module):
    """Self-attention within a frame and to the reference, cross-attention to the CLIP token, feed-forward."""

    def __init__(self, dim: int, heads: int, context_dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)  # like attn2.to_q and to_k: in the checkpoints, without effect for one token
        self.attn2 = Attention(dim, heads, context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim, activation_fn="geglu")

    def context(self, token: Tensor, reference: Tensor | None = None) -> BlockContext:
        """Token (b, 1, d) and the reference's self-attention input (r, n, c) → the block's constants."""
        text = self.attn2.to_out[0](self.attn2.to_v(token))[:, 0]
        if reference is None:
            return BlockContext(text)
        return BlockContext(text, (self.attn1.to_k(reference), self.attn1.to_v(reference)))

    def forward(
        self,
        x: Tensor,  # (b f) n c
        context: BlockContext,
        frames: int,
    ) -> tuple[Tensor, Tensor]:
        """→ the output and the self-attention's input (the reference features of a reference UNet), both (b f) n c."""
        normed = self.norm1(x)
        x = add(x, self._self_attention(normed, context, frames))
        x = add(x, context.text.repeat_interleave(frames, dim=0)[:, None])
        return add(x, feed_forward(self.ff, self.norm3(x))), normed

    def _self_attention(self, x: Tensor, context: BlockContext, frames: int) -> Tensor:
        attn = self.attn1
        query, key, value = attn.to_q(x), attn.to_k(x), attn.to_v(x)
        if context.reference is None:
            return attn.to_out[0](attn.attend(query, key, value))
        ref_key, ref_value = (repeat(t, "r n c -> (r f) n c", f=frames) for t in context.reference)
        alone = len(x) - len(ref_key)  # unconditional rows come first and do not attend to the reference
        parts = [attn.attend(query[:alone], key[:alone], value[:alone])] if alone else []
        parts.append(
            attn.attend(
                query[alone:], torch.cat([key[alone:], ref_key], dim=1), torch.cat([value[alone:], ref_value], dim=1)
            )
        )
        return attn.to_out[0](torch.cat(parts))


class SpatialTransformer(nn.Module):
    """Stable Diffusion 1.5's transformer over the pixels of each frame, (b f) c h w → the same.

    Without gradients it overwrites its input.
    """

    def __init__(self, dim: int, heads: int, context_dim: int, norm_groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, dim, eps=TRANSFORMER_NORM_EPS)
        self.proj_in = nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(dim, heads, context_dim)])
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, context: BlockContext, frames: int) -> tuple[Tensor, Tensor]:
        """→ the output, and the block's self-attention input (b f) n c."""
        height, width = x.shape[-2:]
        # Contiguous, or every norm of the block makes its own copy.
        hidden = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c").contiguous()
        hidden, normed = self.transformer_blocks[0](hidden, context, frames)
        # x comes first, so that the sum keeps its memory format: GroupNorm is less exact in channels_last.
        return add(x, self.proj_out(rearrange(hidden, "b (h w) c -> b c h w", h=height, w=width))), normed


class PositionalEncoding(nn.Module):
    """Sinusoidal positions (Vaswani et al. 2017), computed here; the checkpoints' `pe` is not loaded."""

    def __init__(self, dim: int, max_len: int):
        super().__init__()
        position = torch.arange(max_len)[:, None]
        frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
        table = torch.zeros(1, max_len, dim)
        table[0, :, 0::2] = torch.sin(position * frequency)
        table[0, :, 1::2] = torch.cos(position * frequency)
        self.register_buffer("pe", table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]]


class TemporalAttention(Attention):
    """Self-attention of each pixel over the frames, (b n) f c → the same."""

    def __init__(self, dim: int, heads: int, max_frames: int):
        super().__init__(dim, heads)
        self.pos_encoder = PositionalEncoding(dim, max_frames)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_encoder(x)
        return self.to_out[0](self.attend(self.to_q(x), self.to_k(x), self.to_v(x)))


class TemporalBlock(nn.Module):
    """Temporal self-attentions and a feed-forward, each with norm and residual: (b n) f c → the same."""

    def __init__(self, dim: int, heads: int, max_frames: int, attentions: int):
        super().__init__()
        self.attention_blocks = nn.ModuleList([TemporalAttention(dim, heads, max_frames) for _ in range(attentions)])
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(attentions)])
        self.ff = FeedForward(dim, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = add(x, attention(norm(x)))
        return add(x, feed_forward(self.ff, self.ff_norm(x)))


class TemporalTransformer(nn.Module):
    """GroupNorm per frame, then attention over the frames, (b f) c h w → the same.

    Without gradients it overwrites its input.
    """

    def __init__(self, dim: int, heads: int, max_frames: int, blocks: int, attentions: int, norm_groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, dim, eps=TRANSFORMER_NORM_EPS)
        self.proj_in = nn.Linear(dim, dim)
        self.transformer_blocks = nn.ModuleList(
            [TemporalBlock(dim, heads, max_frames, attentions) for _ in range(blocks)]
        )
        self.proj_out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        frames: int,
        tokens: int | None = None,  # positions (frames x pixels) a chunk, at least one pixel; None: all
    ) -> Tensor:
        if torch.is_grad_enabled():
            # On a CPU torch 2.13 crashes in GroupNorm's backward pass for another memory format if the input needs no
            # gradient. That is the first motion module's norm, where only motion modules are trained.
            x = x.contiguous()
        normed = self.norm(x)
        pixels = x.shape[-2] * x.shape[-1]
        step = pixels if tokens is None else max(1, min(pixels, tokens // len(x)))
        if not torch.is_grad_enabled():
            step = min(step, max(1, MAX_SEQUENCES // (len(x) // frames)))
        if step == pixels:
            return add(x, self._attend(normed.flatten(2), frames).view_as(x))
        flat, normed = x.flatten(2), normed.flatten(2)
        for part in spans(pixels, step):
            flat[..., part].add_(self._attend(normed[..., part], frames))
        return x

    def _attend(self, normed: Tensor, frames: int) -> Tensor:  # (b f) c n → the same
        hidden = rearrange(normed, "(b f) c n -> (b n) f c", f=frames)
        if hidden.device.type == "cpu":
            hidden = hidden.contiguous()  # or torch copies proj_in's weights for each of the b n sequences
        hidden = self.proj_in(hidden)
        for block in self.transformer_blocks:
            hidden = block(hidden)
        return rearrange(self.proj_out(hidden), "(b n) f c -> (b f) c n", n=normed.shape[-1])


class MotionModule(nn.Module):
    """AnimateDiff's motion module (Guo et al. 2023): a temporal transformer under its name in the checkpoints.

    Without gradients it overwrites its input.
    """

    def __init__(self, dim: int, heads: int, max_frames: int, blocks: int, attentions: int, norm_groups: int):
        super().__init__()
        self.temporal_transformer = TemporalTransformer(dim, heads, max_frames, blocks, attentions, norm_groups)

    def forward(self, x: Tensor, frames: int, tokens: int | None = None) -> Tensor:
        return self.temporal_transformer(x, frames, tokens)
