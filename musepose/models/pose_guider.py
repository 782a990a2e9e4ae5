"""The pose guider: skeleton pictures → features that are added to the denoising UNet's first layer."""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor


class PoseGuider(ModelMixin, ConfigMixin):
    """ControlNet's conditioning embedding (Zhang et al. 2023), eight times smaller than the picture.

    forward: pictures in [0, 1], (b f) 3 H W → (b f) c H/8 W/8.
    """

    @register_to_config
    def __init__(
        self,
        conditioning_embedding_channels: int = 320,  # the denoising UNet's first width
        conditioning_channels: int = 3,
        block_out_channels: tuple[int, ...] = (16, 32, 96, 256),
    ):
        super().__init__()
        embedding = ControlNetConditioningEmbedding(
            conditioning_embedding_channels, conditioning_channels, tuple(block_out_channels)
        )
        # The checkpoints name these layers without a prefix.
        self.conv_in, self.blocks, self.conv_out = embedding.conv_in, embedding.blocks, embedding.conv_out

    def forward(self, pictures: Tensor) -> Tensor:
        return ControlNetConditioningEmbedding.forward(self, pictures)
