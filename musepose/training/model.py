"""The trained networks: initialisation, trainable parameters, forward pass, saving."""

import filecmp
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from musepose.models.configs import check_configs, guider_config, motion_config, unet_config
from musepose.models.pose_guider import PoseGuider
from musepose.models.state_dicts import read_checkpoint, refuse_other_motion_modules, require_all, take_matching
from musepose.models.unet import UNet
from musepose.models.weights import WeightPaths, base_unet_file, check_weights, fill_model
from musepose.training.config import TrainConfig
from musepose.training.loss import make_noise_schedule
from musepose.utils.errors import UserError
from musepose.utils.files import CompleteFiles, require_file
from musepose.utils.options import DTYPES
from musepose.utils.saving import open_to_save

MOTION = ".motion_modules."


class Animator(nn.Module):
    """Reference UNet, denoising UNet and pose guider as one module, for distributed data-parallel training."""

    def __init__(self, reference_unet: UNet, denoising_unet: UNet, pose_guider: PoseGuider):
        super().__init__()
        self.reference_unet, self.denoising_unet, self.pose_guider = reference_unet, denoising_unet, pose_guider

    def forward(
        self,
        noisy: Tensor,  # b f c h w
        timesteps: Tensor,  # b f
        reference: Tensor,  # b c h w, the reference pictures' latents
        token: Tensor,  # b 1 d, their CLIP embeddings
        poses: Tensor,  # b f 3 H W in [0, 1]
        dropped: Tensor,  # b bool: samples without token and reference
    ) -> Tensor:
        """→ the prediction, b f c h w."""
        order = torch.argsort(dropped.int(), descending=True, stable=True)  # unconditional samples first
        unconditional = int(dropped.sum())
        frames = noisy.shape[1]
        features = self.reference_unet(reference, 0, self.reference_unet.prepare(token))
        kept = [feature[order[unconditional:]] for feature in features]
        token = torch.where(dropped[:, None, None], 0, token)[order]
        context = self.denoising_unet.prepare(token, kept if unconditional < len(order) else None)
        pose_features = self.pose_guider(poses[order].flatten(0, 1))
        prediction = self.denoising_unet(
            noisy[order].flatten(0, 1), timesteps[order].flatten(), context, pose_features, frames=frames
        ).unflatten(0, (-1, frames))
        if unconditional == len(order):  # data-parallel training needs a gradient, here zero, for every parameter
            prediction = prediction + 0 * sum(feature.sum() for feature in features)
        return prediction[torch.argsort(order)]


def weight_paths(config: TrainConfig, models: Path) -> WeightPaths:
    """Paths of all weights: frozen networks as configured, trained ones in the folder `models`."""
    names = ("denoising_unet", "reference_unet", "pose_guider", "motion_module")
    return WeightPaths(
        base_model=config.base_model_path,
        vae=config.vae_model_path,
        image_encoder=config.image_encoder_path,
        inference_config=config.inference_config,
        **{name: models / f"{name}.pth" for name in names},
    )


def check_networks(config: TrainConfig, clip_frames: int | None) -> None:
    """Check that the networks' configs match, before anything is loaded. `clip_frames` is None in stage 1.

    Raises UserError: two configs do not match, or a file is missing.
    """
    paths = weight_paths(config, Path())
    check_configs(paths.base_model, paths.vae, paths.image_encoder, paths.inference_config)
    motion = motion_config(paths.inference_config)
    make_noise_schedule(config.noise_scheduler_kwargs)
    check_weights(paths, ("vae", "image_encoder"))
    if clip_frames is None:
        if not (config.from_scratch or config.start_from):
            require_file(
                base_unet_file(paths), "run `python download_weights.py --with_base_unet`, or set from_scratch"
            )
        return
    if motion is None:
        raise UserError(
            f"{paths.inference_config} has use_motion_module: false, but stage 2 trains motion modules: "
            "use an inference_config with motion modules"
        )
    if clip_frames > motion["max_frames"]:
        raise UserError(
            f"data.n_sample_frames is {clip_frames}, the motion modules know {motion['max_frames']} positions: lower "
            f"it, or raise temporal_position_encoding_max_len in {paths.inference_config}"
        )


def build_stage_1(config: TrainConfig) -> Animator:
    """All networks from the folder `start_from`; or UNets from the base model or random, the pose guider random or from
    a ControlNet. They are trained in float32, whatever the files hold.

    A random denoising UNet predicts zero at first, and the reference UNet starts as its copy.
    Raises UserError: a file is missing, or has another architecture.
    """
    paths = weight_paths(config, config.start_from or Path())
    sizes = unet_config(paths.base_model / "unet" / "config.json")
    torch.manual_seed(config.seed)
    denoising, reference = UNet(**sizes), UNet(**sizes, has_output=False)
    guider = PoseGuider(sizes["block_out_channels"][0], **guider_config(paths.inference_config))
    if config.start_from:
        _fill_stage_1(reference, denoising, guider, paths, besides="")
    elif config.from_scratch:
        nn.init.zeros_(denoising.conv_out.weight)
        nn.init.zeros_(denoising.conv_out.bias)
        reference.load_state_dict(denoising.state_dict(), strict=False)
    else:
        for unet in (denoising, reference):
            fill_model("base_unet", unet, paths)
    if config.controlnet_openpose_path:
        _load_conditioning_embedding(guider, config.controlnet_openpose_path)
    return Animator(reference, denoising, guider)


def build_stage_2(config: TrainConfig) -> Animator:
    """Stage 1's networks, frozen, with motion modules from AnimateDiff or zero-initialised (an identity).

    Raises UserError: a file is missing, or has another architecture.
    """
    paths = weight_paths(config, config.stage1_ckpt_dir)
    sizes = unet_config(paths.base_model / "unet" / "config.json")
    motion = motion_config(paths.inference_config)
    torch.manual_seed(config.seed)
    denoising = UNet(**sizes, motion_module=motion)
    reference = UNet(**sizes, has_output=False)
    guider = PoseGuider(sizes["block_out_channels"][0], **guider_config(paths.inference_config))
    _fill_stage_1(reference, denoising, guider, paths, besides=MOTION)
    if config.mm_path:
        _load_motion_modules(denoising, config.mm_path)
    else:
        for name, parameter in denoising.named_parameters():
            if MOTION in name and ".temporal_transformer.proj_out." in name:
                nn.init.zeros_(parameter)
    return Animator(reference, denoising, guider).requires_grad_(False)


def _fill_stage_1(reference: UNet, denoising: UNet, guider: PoseGuider, paths: WeightPaths, besides: str) -> None:
    """Fill the networks with the weights that stage 1 saved; `besides` and errors as in `fill_model`."""
    fill_model("reference_unet", reference, paths)
    fill_model("pose_guider", guider, paths)
    fill_model("denoising_unet", denoising, paths, besides=besides)


def stage_1_parameters(model: Animator) -> list[str]:
    """Names of the parameters that stage 1 trains: all that influence the prediction."""
    return parameters_with_gradients(model)


def stage_2_parameters(model: Animator) -> list[str]:
    """Names of the parameters that stage 2 trains: the motion modules."""
    return [name for name, _ in model.named_parameters() if MOTION in name]


def parameters_with_gradients(model: Animator) -> list[str]:
    """Names of the parameters that receive a gradient, found by a backward pass on the meta device.

    The reference UNet's last layers produce no features, and with a single CLIP token the cross-attention's queries,
    keys and norm have no influence. In the optimizer these parameters would only decay.
    """
    sizes = model.denoising_unet.config
    with torch.device("meta"):
        motion = sizes.motion_module
        common = {k: v for k, v in sizes.items() if not k.startswith("_") and k not in ("motion_module", "has_output")}
        copy = Animator(
            UNet(**common, has_output=False),
            UNet(**common, motion_module=motion),
            PoseGuider(**{k: v for k, v in model.pose_guider.config.items() if not k.startswith("_")}),
        )
        side = 2 ** (len(sizes.block_out_channels) - 1)
        features = copy.reference_unet(
            torch.zeros(1, sizes.in_channels, side, side),
            torch.zeros(1),
            copy.reference_unet.prepare(torch.zeros(1, 1, sizes.cross_attention_dim)),
        )
        context = copy.denoising_unet.prepare(torch.zeros(1, 1, sizes.cross_attention_dim), features)
        pose_features = copy.pose_guider(torch.zeros(1, 3, 8 * side, 8 * side))
        latents = torch.zeros(1, sizes.in_channels, side, side)
        copy.denoising_unet(latents, torch.zeros(1), context, pose_features).sum().backward()
    return [name for name, parameter in copy.named_parameters() if parameter.grad is not None]


def set_trainable(model: nn.Module, names: Iterable[str]) -> list[nn.Parameter]:
    """Set requires_grad for exactly the parameters `names`. → them, in the model's order."""
    chosen = set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def save_models(model: Animator, folder: Path, dtype: str, stage1_folder: Path | None) -> None:
    """Write the files of the published layout to `folder`, all of them or none.

    In stage 2 (`stage1_folder` given) only motion_module.pth is new; stage 1's files are hard-linked or copied beside
    it, unless they are there already.
    """
    parts = {"motion_module.pth": {k: v for k, v in model.denoising_unet.state_dict().items() if MOTION in f".{k}"}}
    if stage1_folder is None:
        parts = {f"{name}.pth": getattr(model, name).state_dict() for name in ("reference_unet", "denoising_unet")}
        parts["pose_guider.pth"] = model.pose_guider.state_dict()
    with CompleteFiles() as files:
        for name, tensors in parts.items():
            kept = {k: v.to("cpu", getattr(torch, DTYPES[dtype])) for k, v in tensors.items() if not k.endswith(".pe")}
            with files.file(folder / name) as partial, open_to_save(partial) as file:
                torch.save(kept, file)
        for name in ("reference_unet.pth", "denoising_unet.pth", "pose_guider.pth") if stage1_folder else ():
            source, target = stage1_folder / name, folder / name
            if target.exists() and filecmp.cmp(source, target):  # same file, or same size and time
                continue
            with files.file(target) as partial:
                partial.unlink()
                with suppress(OSError):
                    os.link(source, partial)
                if not partial.exists():
                    shutil.copy2(source, partial)


def _load_conditioning_embedding(guider: PoseGuider, path: Path) -> None:
    prefix = "controlnet_cond_embedding."
    tensors = read_checkpoint(path)
    named = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    wanted = {key: tensor.shape for key, tensor in guider.state_dict().items()}
    found = take_matching(wanted, named, path)
    require_all(wanted, found, path)
    guider.load_state_dict(found)


def _load_motion_modules(unet: UNet, path: Path) -> None:
    tensors = read_checkpoint(path)
    refuse_other_motion_modules(tensors, path)
    wanted = {k: v.shape for k, v in unet.state_dict().items() if MOTION in f".{k}" and not k.endswith(".pe")}
    found = take_matching(wanted, tensors, path)
    require_all(wanted, found, path)
    unet.load_state_dict(found, strict=False)
