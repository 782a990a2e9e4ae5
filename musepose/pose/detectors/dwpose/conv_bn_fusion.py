"""Conv-BN fusion: rewrites a trained mm network for inference. Same function up to rounding, fewer operations."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fuse_for_inference(model: nn.Module) -> nn.Module:
    """Rewrite `model` in place. It must be in eval mode with its weights loaded, and cannot be trained afterwards.

    Batch norms are fused into the preceding convolutions, x · sigmoid(x) becomes SiLU, and the k × k max pooling of SPP
    (k up to 13) becomes k × 1 followed by 1 × k.
    """
    for module in list(model.modules()):
        if type(module).__name__ == "ConvModule":  # mmcv's; by name, because only detector.py imports mm*
            _fuse_conv_module(module)
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d) and child.stride == 1 and _is_square(child):
                module.add_module(name, _separable_pool(child))
    return model.requires_grad_(False)


def _fuse_conv_module(module: nn.Module) -> None:
    norm = module.norm
    if module.order == ("conv", "norm", "act") and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
        module.conv = fuse_conv_bn_eval(module.conv, norm)
        module.add_module(module.norm_name, nn.Identity())
    if module.with_activation and type(module.activate).__name__ == "Swish":
        module.activate = nn.SiLU(inplace=True)


def _is_square(pool: nn.MaxPool2d) -> bool:
    return isinstance(pool.kernel_size, int) and pool.padding == pool.kernel_size // 2 and pool.dilation == 1


def _separable_pool(pool: nn.MaxPool2d) -> nn.Module:
    size, padding = pool.kernel_size, pool.padding
    return nn.Sequential(
        nn.MaxPool2d((size, 1), stride=1, padding=(padding, 0)),
        nn.MaxPool2d((1, size), stride=1, padding=(0, padding)),
    )
