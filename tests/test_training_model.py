"""The trained networks: initial weights, trainable parameters, saving."""

import os
from pathlib import Path

import pytest
import torch
from tiny_training import GUIDER, UNET, config_of, random_animator, random_inputs, write_workplace
from tolerance import network_rounding
from torch import Tensor

import musepose.models.levels
from musepose.models.pose_guider import PoseGuider
from musepose.models.state_dicts import read_checkpoint
from musepose.models.unet import UNet
from musepose.models.weights import load_models
from musepose.training.model import (
    MOTION,
    Animator,
    build_stage_1,
    build_stage_2,
    save_models,
    set_trainable,
    stage_1_parameters,
    stage_2_parameters,
    weight_paths,
)
from musepose.utils.errors import UserError

ALL_DROPPED, NONE_DROPPED = torch.tensor([True, True]), torch.tensor([False, False])


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workplace with random stage-1 models."""
    folder = write_workplace(tmp_path_factory.mktemp("training"))
    save_models(random_animator(motion=False), folder / "stage_1" / "weights", "fp32", None)
    return folder


def predict(animator: Animator, dropped: Tensor, frames: int = 2) -> Tensor:
    inputs = random_inputs(len(dropped), frames)
    timesteps = torch.tensor([[400] * frames, [900] * frames])
    return animator(inputs.pop("latents"), timesteps, **inputs, dropped=dropped)


def test_from_scratch_the_prediction_is_zero_and_the_reference_unet_a_copy(workplace: Path) -> None:
    animator = build_stage_1(config_of(workplace, 1))
    assert not predict(animator, NONE_DROPPED).any()
    denoising = animator.denoising_unet.state_dict()
    for name, tensor in animator.reference_unet.state_dict().items():
        assert torch.equal(tensor, denoising[name]), name
    again = build_stage_1(config_of(workplace, 1)).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in animator.state_dict().items())
    other = build_stage_1(config_of(workplace, 1, "seed=3"))
    assert not torch.equal(other.denoising_unet.conv_in.weight, animator.denoising_unet.conv_in.weight)


def test_both_unets_start_from_the_base_model(workplace: Path) -> None:
    base = UNet(**UNET)
    path = workplace / "base" / "unet" / "diffusion_pytorch_model.bin"
    with pytest.raises(UserError, match="diffusion_pytorch_model.bin: .* tensors are missing"):
        build_stage_1(config_of(workplace, 1, "from_scratch=false"))
    torch.save(base.state_dict(), path)
    try:
        animator = build_stage_1(config_of(workplace, 1, "from_scratch=false"))
    finally:
        path.unlink()
    for unet in (animator.reference_unet, animator.denoising_unet):
        assert all(torch.equal(tensor, base.state_dict()[name]) for name, tensor in unet.state_dict().items())


def test_the_pose_guider_starts_from_controlnet(workplace: Path, tmp_path: Path) -> None:
    guider = PoseGuider(8, 3, GUIDER)
    torch.nn.init.normal_(guider.conv_out.weight)
    controlnet = {f"controlnet_cond_embedding.{k}": v for k, v in guider.state_dict().items()}
    path = tmp_path / "diffusion_pytorch_model.bin"
    torch.save(controlnet | {"conv_in.weight": torch.zeros(1)}, path)
    built = build_stage_1(config_of(workplace, 1, f"controlnet_openpose_path={path}")).pose_guider.state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in guider.state_dict().items())
    del controlnet["controlnet_cond_embedding.conv_out.bias"]
    torch.save(controlnet, path)
    with pytest.raises(UserError, match="1 of .* conv_out.bias"):
        build_stage_1(config_of(workplace, 1, f"controlnet_openpose_path={path}"))


@pytest.mark.parametrize("dropped", [NONE_DROPPED, torch.tensor([True, False]), ALL_DROPPED])
@pytest.mark.parametrize("motion", [False, True])
def test_what_is_trained_always_gets_a_gradient_and_nothing_else_would(motion: bool, dropped: Tensor) -> None:
    animator = random_animator(motion)
    names = stage_2_parameters(animator) if motion else stage_1_parameters(animator)
    trained = set_trainable(animator, names)
    predict(animator, dropped).square().mean().backward()
    assert len(trained) == len(names)
    assert {name for name, p in animator.named_parameters() if p.grad is not None} == set(names)
    if not dropped.any():  # the gradient is one that moves them
        assert all(p.grad.any() for p in trained)
        for p in animator.parameters():
            p.requires_grad_(True)
        animator.zero_grad()
        predict(animator, dropped).square().mean().backward()
        moved = {name for name, p in animator.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == set(names) if not motion else moved > set(names)


def test_unconditional_samples_see_neither_token_nor_reference() -> None:
    animator, dropped = random_animator(motion=False), torch.tensor([False, True])
    inputs = random_inputs(2, 2)
    latents, timesteps = inputs.pop("latents"), torch.full((2, 2), 500)
    one = animator(latents, timesteps, **inputs, dropped=dropped)
    for name in ("reference", "token"):
        changed = inputs | {name: inputs[name] + torch.randn_like(inputs[name])}
        other = animator(latents, timesteps, **changed, dropped=dropped)
        assert torch.equal(one[1], other[1]) and (one[0] - other[0]).abs().max() > 0.01 * one[0].std(), name


def gradient_rounding(animator: Animator, dropped: Tensor) -> float:
    def gradients() -> Tensor:
        animator.zero_grad()
        with torch.enable_grad():
            predict(animator, dropped).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in animator.parameters() if p.grad is not None])

    return network_rounding(gradients, animator)


@pytest.mark.parametrize("motion", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(motion: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    checkpoint = musepose.models.levels.checkpoint
    monkeypatch.setattr(musepose.models.levels, "checkpoint", lambda *a, **k: calls.append(a) or checkpoint(*a, **k))
    gradients = []
    for checkpointing in (False, True):
        animator = random_animator(motion)
        if checkpointing:
            animator.reference_unet.enable_gradient_checkpointing()
            animator.denoising_unet.enable_gradient_checkpointing()
        dropped = torch.tensor([True, False])
        predict(animator, dropped).square().mean().backward()
        gradients.append({name: p.grad for name, p in animator.named_parameters() if p.grad is not None})
        assert bool(calls) == checkpointing
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys()
    bound = gradient_rounding(random_animator(motion), dropped)
    for name, gradient in plain.items():
        assert (recomputed[name] - gradient).abs().max() <= bound, name


def test_stage_2_begins_with_stage_1_s_predictions(workplace: Path) -> None:
    animator = build_stage_2(config_of(workplace, 2))
    expected, found = predict(random_animator(motion=False), NONE_DROPPED), predict(animator, NONE_DROPPED)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert sum(p.numel() for n, p in animator.named_parameters() if MOTION in n and p.any()) > 0


@pytest.mark.parametrize("prefix", ["", "module."])
def test_motion_modules_from_animatediff(workplace: Path, tmp_path: Path, prefix: str) -> None:
    source = random_animator(motion=True, seed=7).denoising_unet.state_dict()
    motion = {k: v for k, v in source.items() if "motion_modules" in k}
    shorter = {k: v[:, :24] if k.endswith(".pe") else v for k, v in motion.items()}  # the file's table is not used
    path = tmp_path / "mm_sd_v15_v2.ckpt"
    torch.save({"state_dict": {f"{prefix}{k}": v for k, v in shorter.items()}}, path)
    built = build_stage_2(config_of(workplace, 2, f"mm_path={path}")).denoising_unet.state_dict()
    assert all(torch.equal(built[k], v) for k, v in motion.items())
    key = next(k for k in motion if k.startswith("mid_block") and not k.endswith(".pe"))
    torch.save({k: v for k, v in motion.items() if k != key}, path)
    with pytest.raises(UserError, match=key):
        build_stage_2(config_of(workplace, 2, f"mm_path={path}"))


def test_saved_models_are_the_published_layout(workplace: Path, tmp_path: Path) -> None:
    animator = random_animator(motion=True)
    stage_1 = workplace / "stage_1" / "weights"
    save_models(animator, tmp_path, "fp16", stage_1)
    assert {p.name for p in tmp_path.iterdir()} == {
        *("motion_module.pth", "denoising_unet.pth", "reference_unet.pth", "pose_guider.pth")
    }
    saved = read_checkpoint(tmp_path / "motion_module.pth")
    assert {t.dtype for t in saved.values()} == {torch.float16}
    assert all("motion_modules." in name and not name.endswith(".pe") for name in saved)
    models = load_models(weight_paths(config_of(workplace, 2), tmp_path), "cpu", torch.float32)
    state = animator.denoising_unet.state_dict()
    of_stage_1 = read_checkpoint(stage_1 / "denoising_unet.pth")
    for name, tensor in models["denoising_unet"].state_dict().items():
        wanted = tensor if name.endswith(".pe") else of_stage_1.get(name)
        wanted = state[name].half().float() if wanted is None else wanted
        assert torch.equal(tensor, wanted), name


def test_stage_1_s_files_are_replaced_where_another_stage_1_left_them(workplace: Path, tmp_path: Path) -> None:
    stage_1, name = workplace / "stage_1" / "weights", "reference_unet.pth"
    torch.save({"old": torch.zeros(1)}, tmp_path / name)
    save_models(random_animator(motion=True), tmp_path, "fp32", stage_1)
    assert (tmp_path / name).read_bytes() == (stage_1 / name).read_bytes()


def test_stage_1_s_files_are_copied_where_they_cannot_be_linked(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    stage_1, name = workplace / "stage_1" / "weights", "pose_guider.pth"
    animator = random_animator(motion=True)
    save_models(animator, tmp_path, "fp32", stage_1)
    first = (tmp_path / name).stat()
    save_models(animator, tmp_path, "fp32", stage_1)
    assert (tmp_path / name).read_bytes() == (stage_1 / name).read_bytes()
    assert (tmp_path / name).stat().st_ino == first.st_ino  # and once only
