"""One resolution of the UNet: resnets, spatial transformers and motion modules, whole or in chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from musepose.models.attention import BlockContext
from musepose.models.chunking import Chunks, in_chunks


@dataclass
class Pass:
    """The arguments that all layers of one forward pass share."""

    temb: Tensor  # (b f, c) or (1, c)
    contexts: Iterator[BlockContext]  # one per spatial transformer, in forward order
    frames: int
    features: list[Tensor] | None  # collects the self-attention inputs, in a reference UNet
    chunks: Chunks


class Level(nn.Module):
    """One resolution: resnets, each followed by a spatial transformer and a motion module if the level has them."""

    def __init__(self, resnets: Sequence[nn.Module], attentions: Sequence[nn.Module], motions: Sequence[nn.Module]):
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.motion_modules = nn.ModuleList(motions)

        self.gradient_checkpointing = False  # set by diffusers' enable_gradient_checkpointing

    def layer(self, index: int, x: Tensor, run: Pass, skip: Tensor | None = None) -> Tensor:
        """Layer `index` on x (b f) c h w; a skip connection is concatenated to x's channels."""
        context = next(run.contexts) if index < len(self.attentions) else None
        if self.gradient_checkpointing and torch.is_grad_enabled():
            arguments = (index, x, skip, run.temb, context, run.frames)
            x, features = checkpoint(self._spatial_and_temporal, *arguments, use_reentrant=False)
        elif run.features is not None or torch.is_grad_enabled() or rows(x, run.chunks) == len(x):
            tokens = run.chunks.tokens
            x, features = self._spatial_and_temporal(index, x, skip, run.temb, context, run.frames, tokens)
        else:
            x, features = self._spatial_in_chunks(index, x, skip, context, run), None
            x = self._temporal(index, x, run.frames, run.chunks.tokens)
        if run.features is not None and features is not None:
            run.features.append(features)
        return x

    def _spatial_and_temporal(
        self,
        index: int,
        x: Tensor,
        skip: Tensor | None,
        temb: Tensor,
        context: BlockContext | None,
        frames: int,
        tokens: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        x, features = self._spatial(index, x, skip, temb, context, frames)
        return self._temporal(index, x, frames, tokens), features

    def _spatial(
        self, index: int, x: Tensor, skip: Tensor | None, temb: Tensor, context: BlockContext | None, frames: int
    ) -> tuple[Tensor, Tensor | None]:
        """Resnet and spatial transformer. → the output, and the transformer's self-attention input."""
        x = self.resnets[index](x if skip is None else torch.cat([x, skip.to(x.device)], dim=1), temb)
        return (x, None) if context is None else self.attentions[index](x, context, frames)

    def _spatial_in_chunks(
        self, index: int, x: Tensor, skip: Tensor | None, context: BlockContext | None, run: Pass
    ) -> Tensor:
        """`_spatial` in chunks of frames; a chunk never holds frames of two batch rows, whose contexts differ."""

        def piece(part: slice) -> Tensor:
            temb = run.temb if len(run.temb) == 1 else run.temb[part]
            own = None if context is None else context.row(part.start // run.frames)
            arguments = (x[part], None if skip is None else skip[part], temb, own, part.stop - part.start)
            return self._spatial(index, *arguments)[0]

        step = min(rows(x, run.chunks), run.frames)
        return in_chunks(piece, len(x), step, run.frames)

    def _temporal(self, index: int, x: Tensor, frames: int, tokens: int | None) -> Tensor:
        return self.motion_modules[index](x, frames, tokens) if index < len(self.motion_modules) else x


def rows(x: Tensor, chunks: Chunks) -> int:
    """Pictures of x (n c h w) a chunk."""
    return chunks.rows(len(x), *x.shape[-2:])
