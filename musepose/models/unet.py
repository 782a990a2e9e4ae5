"""The UNet, for both of its roles: reference UNet and denoising UNet.

Stable Diffusion 1.5's UNet (Rombach et al. 2022) from diffusers' leaf blocks, with AnimateDiff's motion modules behind
every attention (Guo et al. 2023) and reference attention (Hu et al. 2023, "Animate Anyone"). Parameter names are those
of the published checkpoints. Frames live in the batch: `(b f) c h w`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import Downsample2D, Upsample2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from musepose.models.attention import BlockContext, MotionModule, SpatialBlock, SpatialTransformer, TemporalBlock
from musepose.models.chunking import WHOLE, Chunks, Resnet, in_chunks, silu


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
        elif run.features is not None or torch.is_grad_enabled() or _rows(x, run.chunks) == len(x):
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

        step = min(_rows(x, run.chunks), run.frames)
        return in_chunks(piece, len(x), step, run.frames)

    def _temporal(self, index: int, x: Tensor, frames: int, tokens: int | None) -> Tensor:
        return self.motion_modules[index](x, frames, tokens) if index < len(self.motion_modules) else x


def _rows(x: Tensor, chunks: Chunks) -> int:
    """Pictures of x (n c h w) a chunk."""
    return chunks.rows(len(x), *x.shape[-2:])


class UNet(ModelMixin, ConfigMixin):
    """Reference UNet (`has_output=False`: 682 tensors in full size) or denoising UNet (with `motion_module`: 1274).

    The arguments are those of an SD-1.5 UNet's config.json, and the two that tell the roles apart.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        down_block_types: Sequence[str] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types: Sequence[str] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        attention_head_dim: int = 8,  # the number of heads, in spite of its name
        cross_attention_dim: int = 768,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        has_output: bool = True,  # the reference UNet has no conv_out: its forward returns features
        motion_module: dict | None = None,  # heads, max_frames, blocks, attentions (see MotionModule); None: none
    ):
        super().__init__()
        widths = list(block_out_channels)
        temb_width = widths[0] * 4
        for what, heads in (
            ("attention_head_dim", attention_head_dim),
            ("heads", (motion_module or {}).get("heads", 1)),
        ):
            if heads < 1 or any(width % heads for width in widths):
                raise ValueError(f"{what} is {heads}, which does not divide the widths {widths}")
        self.time_proj = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], temb_width)

        def level(channels: list[tuple[int, int]], attentions: int) -> Level:
            width = channels[0][1]
            resnets = [
                Resnet(in_channels=i, out_channels=o, temb_channels=temb_width, groups=norm_num_groups, eps=norm_eps)
                for i, o in channels
            ]
            # The middle block has one transformer for two resnets; a motion module goes with every other layer.
            motions = 1 if len(channels) > attentions > 0 else len(channels)
            return Level(
                resnets,
                [
                    SpatialTransformer(width, attention_head_dim, cross_attention_dim, norm_num_groups)
                    for _ in range(attentions)
                ],
                [MotionModule(width, norm_groups=norm_num_groups, **motion_module) for _ in range(motions)]
                if motion_module
                else [],
            )

        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        skips = [widths[0]]  # channels of the skip connections, in forward order
        self.down_blocks = nn.ModuleList()
        for i, (kind, width) in enumerate(zip(down_block_types, widths, strict=True)):
            channels = [(skips[-1], width)] + [(width, width)] * (layers_per_block - 1)
            block = level(channels, layers_per_block if kind.startswith("CrossAttn") else 0)
            skips += [width] * layers_per_block
            if i < len(widths) - 1:
                block.downsamplers = nn.ModuleList([Downsample2D(width, use_conv=True, name="op")])
                skips.append(width)
            self.down_blocks.append(block)

        self.mid_block = level([(widths[-1], widths[-1])] * 2, 1)

        self.up_blocks = nn.ModuleList()
        before = widths[-1]
        for i, (kind, width) in enumerate(zip(up_block_types, reversed(widths), strict=True)):
            channels = []
            for _ in range(layers_per_block + 1):
                channels.append((before + skips.pop(), width))
                before = width
            block = level(channels, layers_per_block + 1 if kind.startswith("CrossAttn") else 0)
            if i < len(widths) - 1:
                block.upsamplers = nn.ModuleList([Upsample2D(width, use_conv=True)])
            self.up_blocks.append(block)

        if has_output:
            self.conv_norm_out = nn.GroupNorm(norm_num_groups, widths[0], eps=norm_eps)
            self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def compile_layers(self) -> None:
        """Compile each layer at its first use, once for all lengths and sizes."""
        # Layers of one class share their code, so that each width counts as a recompilation.
        for name in ("recompile_limit", "cache_size_limit"):  # from torch 2.7 on, and before
            if hasattr(torch._dynamo.config, name):
                setattr(torch._dynamo.config, name, 64)
        for module in self.modules():
            if isinstance(module, (Resnet, SpatialTransformer, TemporalBlock)):
                module.compile(dynamic=True)

    def spatial_blocks(self) -> dict[str, SpatialBlock]:
        """Name → spatial transformer block, in forward order."""
        in_order = [*self.down_blocks, self.mid_block, *self.up_blocks]
        met = [attention.transformer_blocks[0] for level in in_order for attention in level.attentions]
        names = {module: name for name, module in self.named_modules()}
        return {names[block]: block for block in met}

    def prepare(self, token: Tensor, reference: Sequence[Tensor] | None = None) -> list[BlockContext]:
        """The contexts for `forward`, constant over a sampling.

        token: (b, 1, d), the CLIP embedding of each row, zero for unconditional rows.
        reference: the reference UNet's features, each (r, n, c). The last r of the b rows attend to them.
        """
        if token.ndim != 3 or token.shape[1] != 1:
            raise ValueError(f"token is {tuple(token.shape)}: one token a row, (b, 1, d), is needed")
        blocks = self.spatial_blocks().values()
        if reference is None:
            return [block.context(token) for block in blocks]
        return [block.context(token, features) for block, features in zip(blocks, reference, strict=True)]

    def forward(
        self,
        sample: Tensor,  # (b f) c h w
        timestep: Tensor | float,  # one for all, (b,), or (b f,)
        context: Sequence[BlockContext],  # from `prepare`
        pose_features: Tensor | None = None,  # (b f) c h w or f c h w, added behind conv_in
        frames: int = 1,
        chunks: Chunks = WHOLE,  # chunked execution, without gradients only
    ) -> Tensor | list[Tensor]:
        """→ the prediction (b f) c h w; of a reference UNet, the self-attention inputs of all spatial blocks."""
        if len(sample) % frames:
            raise ValueError(f"{len(sample)} pictures are not a multiple of {frames} frames")
        features = None if self.config.has_output else []
        run = Pass(self._embed(timestep, sample, frames), iter(context), frames, features, chunks)

        x = self.conv_in(sample)
        if pose_features is not None:
            x = (x.unflatten(0, (-1, len(pose_features))) + pose_features).flatten(0, 1)
        store = (lambda skip: skip.to("cpu")) if chunks.offload_skips else (lambda skip: skip)
        skips = [store(x)]
        for level in self.down_blocks:
            for index in range(len(level.resnets)):
                x = level.layer(index, x, run)
                skips.append(store(x))
            if hasattr(level, "downsamplers"):
                x = level.downsamplers[0](x)
                skips.append(store(x))

        for index in range(len(self.mid_block.resnets)):
            x = self.mid_block.layer(index, x, run)

        for level in self.up_blocks:
            for index in range(len(level.resnets)):
                x = level.layer(index, x, run, skips.pop())
            if hasattr(level, "upsamplers"):
                # Odd sides are restored only by the next skip connection's size.
                x = self._upsample(level.upsamplers[0], x, skips[-1].shape[-2:], chunks)

        return self._output(x, chunks) if features is None else features

    def _upsample(self, layer: Upsample2D, x: Tensor, size: torch.Size, chunks: Chunks) -> Tensor:
        return in_chunks(lambda part: layer(x[part], output_size=size), len(x), chunks.rows(len(x), *size))

    def _output(self, x: Tensor, chunks: Chunks) -> Tensor:
        return in_chunks(lambda part: self.conv_out(silu(self.conv_norm_out(x[part]))), len(x), _rows(x, chunks))

    def _embed(self, timestep: Tensor | float, sample: Tensor, frames: int) -> Tensor:
        if isinstance(timestep, Tensor):
            timesteps = timestep.to(sample.device).reshape(-1)
        else:
            timesteps = torch.full((1,), timestep, device=sample.device)  # made on the device: no copy to wait for
        temb = self.time_embedding(self.time_proj(timesteps).to(sample.dtype))
        return temb if len(temb) in (1, len(sample)) else temb.repeat_interleave(frames, dim=0)
