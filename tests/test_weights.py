"""The published layout loads strictly: every tensor is covered, or the error names file, tensor and expectation."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from musepose.inference.memory_estimate import meta_pipeline
from musepose.models.state_dicts import read_checkpoint
from musepose.models.weights import WeightPaths, check_weights, load_models
from musepose.utils.errors import UserError
from random_models.tiny_weights import UNET_CONFIG, tiny_models, write_published_layout

BANK = "mid_block.attentions.0.proj_in.weight"


@pytest.fixture
def paths(tmp_path) -> WeightPaths:
    return write_published_layout(tmp_path)


def edit(path, change) -> None:
    tensors = dict(read_checkpoint(path))
    change(tensors)
    torch.save({key: tensor.clone() for key, tensor in tensors.items()}, path)


def assert_equal_to_rule(models, dtype=torch.float32) -> None:
    for name, expected in tiny_models().items():
        state = models[name].state_dict()
        for key, tensor in expected.state_dict().items():
            wanted = tensor.to(dtype) if tensor.is_floating_point() else tensor
            assert torch.equal(state[key], wanted), (name, key)


def test_loads_every_model(paths):
    check_weights(paths)
    models = load_models(paths, "cpu", torch.float32)
    assert_equal_to_rule(models)
    assert not any(model.training for model in models.values())
    assert not any(p.requires_grad for model in models.values() for p in model.parameters())


@pytest.mark.parametrize(("file", "model"), [(torch.float16, torch.float32), (torch.float32, torch.float16)])
def test_precision_of_file_and_model_may_differ(tmp_path, file, model):
    models = load_models(write_published_layout(tmp_path, file), "cpu", model)
    assert {p.dtype for m in models.values() for p in m.parameters()} == {model}
    expected = tiny_models("denoising_unet")["denoising_unet"].conv_in.weight.to(torch.float16).to(model)
    assert torch.equal(models["denoising_unet"].conv_in.weight, expected)


def test_safetensors_in_place_of_pickles(paths):
    for folder in (paths.vae, paths.image_encoder):
        old = next(folder.glob("*.bin"))
        name = "diffusion_pytorch_model" if folder == paths.vae else "model"
        save_file({k: v.clone() for k, v in read_checkpoint(old).items()}, folder / f"{name}.safetensors")
        old.unlink()
    assert_equal_to_rule(load_models(paths, "cpu", torch.float32))


def test_old_autoencoder_names(paths):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors):
        for key in [k for k in tensors if ".attentions." in k]:
            layer = next((new for new in old if f".{new}." in key), None)
            if layer:
                tensors[key.replace(layer, old[layer])] = tensors.pop(key)

    edit(paths.vae / "diffusion_pytorch_model.bin", rename)
    assert_equal_to_rule(load_models(paths, "cpu", torch.float32))


def test_denoising_file_wins_over_motion_file(paths):
    edit(paths.motion_module, lambda tensors: tensors.update({"conv_in.bias": torch.full((32,), 7.0)}))
    key = "mid_block.motion_modules.0.temporal_transformer.proj_in.bias"
    edit(paths.denoising_unet, lambda tensors: tensors.update({key: torch.full((128,), 5.0)}))
    state = load_models(paths, "cpu", torch.float32)["denoising_unet"].state_dict()
    assert not torch.equal(state["conv_in.bias"], torch.full((32,), 7.0))
    assert torch.equal(state[key], torch.full((128,), 5.0))


def test_position_tables_are_recomputed(paths):
    def shorten(tensors):
        for key in [k for k in tensors if k.endswith(".pe")]:
            tensors[key] = torch.full((1, 24, tensors[key].shape[-1]), 9.0)

    edit(paths.motion_module, shorten)
    assert_equal_to_rule(load_models(paths, "cpu", torch.float32))


@pytest.mark.parametrize("which", ["reference_unet", "denoising_unet", "motion_module", "pose_guider"])
def test_a_missing_tensor_is_named(paths, which):
    path = getattr(paths, which)
    key = sorted(read_checkpoint(path))[-1]
    edit(path, lambda tensors: tensors.pop(key))
    with pytest.raises(UserError) as error:
        check_weights(paths)
    assert str(path) in str(error.value)
    assert key in str(error.value)
    assert "1 of" in str(error.value)


def test_the_base_unet_fills_what_the_musepose_files_lack(paths):
    base = paths.base_model / "unet" / "diffusion_pytorch_model.bin"
    torch.save({BANK: torch.full((128, 128, 1, 1), 3.0), "conv_in.bias": torch.full((32,), 3.0)}, base)
    edit(paths.denoising_unet, lambda tensors: tensors.pop(BANK))
    state = load_models(paths, "cpu", torch.float32)["denoising_unet"].state_dict()
    assert (state[BANK] == 3).all()
    assert not (state["conv_in.bias"] == 3).any()


def test_another_architecture(paths):
    edit(paths.reference_unet, lambda tensors: tensors.update({BANK: torch.zeros(64, 64, 1, 1)}))
    with pytest.raises(UserError, match=r"reference_unet.pth: tensor mid_block.*\[64, 64, 1, 1\] where \[128, 128"):
        check_weights(paths)


def test_surplus_tensors_are_one_warning(paths, caplog):
    extra = {"teacher.a": torch.zeros(1), "teacher.b": torch.zeros(1)}
    edit(paths.pose_guider, lambda tensors: tensors.update(extra))
    with caplog.at_level(logging.WARNING):
        check_weights(paths)
    (record,) = caplog.records
    assert "pose_guider.pth: 2 tensors" in record.getMessage()
    assert "teacher.a" in record.getMessage()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "gelu"}, "act_fn is .gelu.: only silu"),
        ({"use_linear_projection": True}, "use_linear_projection"),
        ({"block_out_channels": [32, 64, 96]}, "down_block_types and block_out_channels differ in length"),
    ],
)
def test_a_base_config_of_another_type(paths, change, message):
    (paths.base_model / "unet" / "config.json").write_text(json.dumps(UNET_CONFIG | change))
    with pytest.raises(UserError, match=message):
        check_weights(paths)


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_broken_configs(paths, content):
    (paths.vae / "config.json").write_text(content)
    with pytest.raises(UserError, match="sd-vae-ft-mse"):
        check_weights(paths)


def test_an_inference_config_that_asks_for_something_else(paths, tmp_path):
    text = paths.inference_config.read_text().replace("motion_module_mid_block: true", "motion_module_mid_block: false")
    other = tmp_path / "inference_v1.yaml"
    other.write_text(text)
    with pytest.raises(UserError, match="motion_module_mid_block is False"):
        check_weights(WeightPaths(**{**vars(paths), "inference_config": other}))


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("noise_scheduler_kwargs", "beta_schedule", "sqrt_linear", "sqrt_linear"),
        ("noise_scheduler_kwargs", "prediction_type", "v-prediction", "prediction_type is .v-prediction.: give v_pred"),
        ("noise_scheduler_kwargs", "beta_begin", 0.001, "beta_begin"),
        ("motion_module_kwargs", "num_attention_heads", 7, "heads is 7, which does not divide the widths"),
        ("motion_module_kwargs", "num_attention_heads", 0, "heads is 0"),
    ],
)
def test_slips_in_the_inference_config_are_found_before_loading(paths, tmp_path, section, key, value, message):
    config = OmegaConf.load(paths.inference_config)
    part = config.unet_additional_kwargs[section] if section == "motion_module_kwargs" else config[section]
    part[key] = value
    OmegaConf.save(config, tmp_path / "slip.yaml")
    with pytest.raises(UserError, match=message):  # of which load_pipeline makes sure before it loads
        meta_pipeline(replace(paths, inference_config=tmp_path / "slip.yaml"), torch.float32)
