"""The UNet, for both of its roles: reference UNet and denoising UNet.

Stable Diffusion 1.5's UNet (Rombach et al. 2022) from diffusers' leaf blocks, with AnimateDiff's motion modules behind
every attention (Guo et al. 2023) and reference attention (Hu et al. 2023, "Animate Anyone"). Parameter names are those
of the published checkpoints. Frames live in the batch: `(b f) c h w`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import Downsample2D, Upsample2D
from torch import Tensor, nn

from musepose.models.attention import BlockContext, MotionModule, SpatialBlock, SpatialTransformer, TemporalBlock
from musepose.models.chunking import WHOLE, Chunks, Resnet, in_chunks, silu
from musepose.models.levels import Level, Pass, rows


@dataclass
class DeepFeatures:
    """What the UNet's deeper layers give to the last `layers` up layers (Ma et al. 2023, "DeepCache").

    A forward pass without a value sets it; one with a value runs only these up layers, and the down layers before the
    skip connections that they need.
    """

    layers: int
    value: Tensor | None = None  # (b f) c h w


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
        """Compile each layer at its first use, once for all sizes and lengths (with torch 2.6 once a length)."""
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
        deep: DeepFeatures | None = None,  # kept from an earlier timestep, or to be kept
    ) -> Tensor | list[Tensor]:
        """→ the prediction (b f) c h w; of a reference UNet, the self-attention inputs of all spatial blocks."""
        if len(sample) % frames:
            raise ValueError(f"{len(sample)} pictures are not a multiple of {frames} frames")
        features = None if self.config.has_output else []
        run = Pass(self._embed(timestep, sample, frames), iter(context), frames, features, chunks)
        first = self.up_layers - deep.layers if deep else 0  # up layer that takes the deep features
        shallow = deep is not None and deep.value is not None

        x, skips = self._down(sample, pose_features, run, deep.layers if shallow else None)
        if shallow:
            x = deep.value.to(x.device)
            with_context = sum(self._has_context[first:])
            run.contexts = iter(context[len(context) - with_context :])
        else:
            for index in range(len(self.mid_block.resnets)):
                x = self.mid_block.layer(index, x, run)

        number = 0
        for level in self.up_blocks:
            for index in range(len(level.resnets)):
                if deep is not None and number == first:
                    deep.value = x
                if not shallow or number >= first:
                    x = level.layer(index, x, run, skips.pop())
                number += 1
            if hasattr(level, "upsamplers") and (not shallow or number > first):
                # Odd sides are restored only by the next skip connection's size.
                x = self._upsample(level.upsamplers[0], x, skips[-1].shape[-2:], chunks)

        return self._output(x, chunks) if features is None else features

    @property
    def up_layers(self) -> int:
        """Layers of the up path, as many as skip connections."""
        return len(self._has_context)

    @property
    def _has_context(self) -> list[bool]:
        """Of each up layer: whether it has a spatial transformer."""
        return [index < len(level.attentions) for level in self.up_blocks for index in range(len(level.resnets))]

    def _down(
        self, sample: Tensor, pose_features: Tensor | None, run: Pass, count: int | None
    ) -> tuple[Tensor, list[Tensor]]:
        """conv_in and the down path. → its output, and the skip connections, the first `count` of them; None: all."""
        x = self.conv_in(sample)
        if pose_features is not None:
            x = (x.unflatten(0, (-1, len(pose_features))) + pose_features).flatten(0, 1)
        store = (lambda skip: skip.to("cpu")) if run.chunks.offload_skips else (lambda skip: skip)
        skips = [store(x)]
        for level in self.down_blocks:
            for index in range(len(level.resnets)):
                if len(skips) == count:
                    return x, skips
                x = level.layer(index, x, run)
                skips.append(store(x))
            if hasattr(level, "downsamplers") and len(skips) != count:
                x = level.downsamplers[0](x)
                skips.append(store(x))
        return x, skips

    def _upsample(self, layer: Upsample2D, x: Tensor, size: torch.Size, chunks: Chunks) -> Tensor:
        return in_chunks(lambda part: layer(x[part], output_size=size), len(x), chunks.rows(len(x), *size))

    def _output(self, x: Tensor, chunks: Chunks) -> Tensor:
        return in_chunks(lambda part: self.conv_out(silu(self.conv_norm_out(x[part]))), len(x), rows(x, chunks))

    def _embed(self, timestep: Tensor | float, sample: Tensor, frames: int) -> Tensor:
        if isinstance(timestep, Tensor):
            timesteps = timestep.to(sample.device).reshape(-1)
        else:
            timesteps = torch.full((1,), timestep, device=sample.device)  # made on the device: no copy to wait for
        temb = self.time_embedding(self.time_proj(timesteps).to(sample.dtype))
        return temb if len(temb) in (1, len(sample)) else temb.repeat_interleave(frames, dim=0)
