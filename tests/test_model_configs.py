"""Model configs, inference and training YAML: checked by schemas before anything is built. Whatever they hold gives
one line, or models."""

import copy
import json
import random
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml

from musepose.inference.memory_estimate import meta_pipeline
from musepose.models import configs
from musepose.models.configs import check_configs
from musepose.models.weights import WeightPaths, empty_models
from musepose.pipelines.options import SamplingOptions
from musepose.training.config import TrainConfig, checked
from musepose.utils.config_file import Config
from musepose.utils.errors import UserError
from random_models.tiny_weights import CLIP_CONFIG, UNET_CONFIG, VAE_CONFIG

ROOT = Path(__file__).resolve().parent.parent
INFERENCE = yaml.safe_load((ROOT / "configs/inference_v2.yaml").read_text())
UNET, VAE, CLIP, CONFIG = "base/unet/config.json", "vae/config.json", "clip/config.json", "inference.yaml"
FILES = {
    UNET: UNET_CONFIG,
    VAE: VAE_CONFIG,
    CLIP: CLIP_CONFIG,
    CONFIG: INFERENCE,
}
MOTION, NOISE = "unet_additional_kwargs", "noise_scheduler_kwargs"
UNUSED = ("_class_name", "sample_size")  # of a UNet
WRONG = (
    *(0, -1, 1, 3, 2**70, -(2**70), 0.5, -0.5, 1e308, float("nan"), float("inf"), True, False, "", "x", "x" * 5000),
    *([], [[]], [0], [-1, -1], [2**70] * 4, ["x"] * 4, [None], [{}], {}, {"x": 1}, "\x1b[31m", "{oc.env:HOME}"),
)


@pytest.fixture
def paths(tmp_path) -> WeightPaths:
    for name, content in FILES.items():
        write(tmp_path, name, content)
    weights = dict.fromkeys(("denoising_unet", "reference_unet", "pose_guider", "motion_module"), tmp_path)
    folders = {"base_model": tmp_path / "base", "vae": tmp_path / "vae", "image_encoder": tmp_path / "clip"}
    return WeightPaths(**folders, **weights, inference_config=tmp_path / CONFIG)


def write(folder, name, content) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))  # JSON is YAML


def changed(content, place, value):
    """A copy of a nested config with another value at the path `place`."""
    content = copy.deepcopy(content)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return content


def check(paths) -> None:
    check_configs(paths.base_model, paths.vae, paths.image_encoder, paths.inference_config)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        (
            UNET,
            ("layers_per_block",),
            2**70,
            "layers_per_block is 1180.*: give a whole number, 1 to 8",
        ),
        (
            UNET,
            ("norm_eps",),
            "x" * 5000,
            r"norm_eps is .x+\.{3}x+.: give a number, more than 0 and at most",
        ),
        (
            UNET,
            ("attention_head_dim",),
            [5, 10],
            "attention_head_dim is .5, 10.: give a whole number",
        ),
        (
            UNET,
            ("down_block_types",),
            ["AttnDownBlock2D"] * 4,
            "CrossAttnDownBlock2D or DownBlock2D",
        ),
        (UNET, ("norm_num_groups",), 5, "norm_num_groups is 5, which does not divide the widths"),
        (
            UNET,
            ("in_channels",),
            9,
            "out_channels is 4 where .* has in_channels 9: use models that fit",
        ),
        (UNET, ("time_cond_proj_dim",), 256, "time_cond_proj_dim is 256: only None is supported"),
        (
            VAE,
            ("latent_channels",),
            16,
            "vae/config.json: latent_channels is 16 where .* has in_channels 4",
        ),
        (VAE, ("block_out_channels",), [], "a list of 4 values, each a whole number, 1 to 16384"),
        (VAE, ("shift_factor",), 0.1, "shift_factor is 0.1: only 0 is supported"),
        (VAE, ("scaling_factor",), 0, "scaling_factor is 0: give a number, more than 0"),
        (VAE, ("_class_name",), "VQModel", "_class_name is .VQModel.: only AutoencoderKL"),
        (VAE, ("attn_implementation",), "eager", "attn_implementation is .eager.: only sdpa"),
        (CLIP, ("projection_dim",), 48, "projection_dim is 48 where .* has cross_attention_dim 32"),
        (CLIP, ("num_attention_heads",), 3, "num_attention_heads is 3, which does not divide"),
        (CLIP, ("num_hidden_layers",), "2", "num_hidden_layers is '2': give a whole number"),
        (CLIP, ("hidden_act",), ["gelu"], "hidden_act is .'gelu'.: give quick_gelu or gelu"),
        (CLIP, ("image_size",), 336, "image_size is 336: only 224"),
        (CLIP, ("attn_implementation",), "flash_attention_2", "flash_attention_2.: give sdpa or eager"),
        (CONFIG, (MOTION,), None, "unet_additional_kwargs is None: give `key: value` pairs"),
        (CONFIG, (MOTION, "motion_module_kwargs"), 1, "motion_module_kwargs is 1: give `key: value` pairs"),
        (
            CONFIG,
            (MOTION, "motion_module_midblock"),
            True,
            "unknown key .*midblock: is it unet_additional_kwargs.motion",
        ),
        (
            CONFIG,
            (MOTION, "motion_module_kwargs", "attention_block_types"),
            ["Temporal_Cross"],
            "attention_block_types is .'Temporal_Cross'.: give a list of 1 to 4 values, each Temporal_Self",
        ),
        (CONFIG, ("pose_guider_kwargs",), {"block_out_channels": [8, 16]}, "give a list of 4 values"),
        (CONFIG, (NOISE, "beta_start"), -1, "inference.yaml: noise_scheduler_kwargs.beta_start is -1: give"),
        (CONFIG, (NOISE, "beta_start"), 0.5, "beta_start is 0.5, above beta_end 0.012"),
        (CONFIG, (NOISE, "beta_schedule"), "sqrt_linear", "sqrt_linear.: give linear or scaled_linear or"),
        (CONFIG, (NOISE, "prediction_type"), "epsilon", "cannot start from the pure noise"),
        (
            CONFIG,
            (NOISE, "enable_zero_snr"),
            True,
            "inference.yaml: unknown key noise_scheduler_kwargs.enable_zero_snr: is it noise",
        ),
        (CONFIG, (NOISE, "trained_betas"), [0.1], "trained_betas has 1 values for 1000 timesteps"),
    ],
)
def test_the_line_names_file_key_value_and_what_is_expected(tmp_path, paths, name, place, value, message):
    write(tmp_path, name, changed(FILES[name], place, value))
    with pytest.raises(UserError, match=message) as error:
        check(paths)
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)


def test_the_tiny_configs_and_the_shipped_ones_are_right(paths):
    check(paths)
    puppet = ROOT / "pretrained_weights/puppet"
    folders = [puppet / name for name in ("sd-image-variations-diffusers", "sd-vae-ft-mse", "image_encoder")]
    check_configs(*folders, ROOT / "configs/puppet/inference.yaml")


def test_null_stands_for_the_default(tmp_path, paths):
    write(tmp_path, CONFIG, changed(INFERENCE, (MOTION, "motion_module_kwargs"), None))
    check(paths)


def test_a_byte_order_mark_is_no_fault(tmp_path, paths):
    (tmp_path / VAE).write_text(json.dumps(VAE_CONFIG), encoding="utf-8-sig")
    check(paths)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"[1]", b"{", b'{"a": ' + b"9" * 5000 + b"}"])
def test_a_config_that_is_no_json_object(tmp_path, paths, content):
    (tmp_path / VAE).write_bytes(content)
    with pytest.raises(UserError, match="vae/config.json is no (JSON|model config)"):
        check(paths)


def test_a_config_that_may_not_be_read(own_folder):
    (own_folder / "config.json").write_text("{}")
    (own_folder / "config.json").chmod(0)
    with pytest.raises(
        UserError, match=r"config.json cannot be read \(Permission denied\): check the path and its permissions"
    ):
        configs.read_json(own_folder / "config.json")


def test_the_last_step_of_leading_timesteps_must_exist(tmp_path, paths):
    write(tmp_path, CONFIG, changed(INFERENCE, (NOISE, "timestep_spacing"), "leading"))  # with steps_offset 1
    pipeline = meta_pipeline(paths, torch.float32)
    pipeline.check(SamplingOptions(num_inference_steps=999))
    pipeline.scheduler.set_timesteps(999)
    assert pipeline.scheduler.timesteps.max() < 1000
    with pytest.raises(ValueError, match="1000 steps: at most 999 are possible"):
        pipeline.check(SamplingOptions(num_inference_steps=1000))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_the_encoder_s_attention_is_honoured(tmp_path, paths, key):
    write(tmp_path, CLIP, CLIP_CONFIG | {key: "eager"})
    assert dict(empty_models(paths))["image_encoder"].config._attn_implementation == "eager"


def places(content, prefix=()):
    """The paths of all values in a nested config, of dicts and of lists' first items."""
    for key, value in content.items() if isinstance(content, dict) else [(0, content[0])]:
        yield (*prefix, key)
        if isinstance(value, dict | list) and value:
            yield from places(value, (*prefix, key))


@pytest.mark.parametrize("name", FILES)
def test_whatever_a_config_holds_gives_one_line_or_models(tmp_path, paths, name, monkeypatch):
    """Every key, each kind of wrong value. Of the values that pass, one a key builds the models that it concerns."""
    monkeypatch.setattr(configs, "read_inference_config", configs.read_json)  # JSON is YAML, and faster to read
    concerned = {VAE: 1, CLIP: 2}.get(name, 5)
    chooser = random.Random(name)
    for place in places(FILES[name]):
        passed = []
        for value in WRONG:
            write(tmp_path, name, changed(FILES[name], place, value))
            try:
                check(paths)
                passed.append(value)
            except UserError as error:
                assert len(str(error)) < 900 and str(error).isprintable(), (place, value)
        assert len(passed) < len(WRONG) or place[-1] in UNUSED, place
        if passed and place[-1] not in UNUSED:
            write(tmp_path, name, changed(FILES[name], place, chooser.choice(passed)))
            assert len(list(islice(empty_models(paths), concerned))) == concerned, place


@pytest.mark.parametrize("stage", [1, 2])
def test_whatever_a_training_s_config_holds_gives_one_line_or_settings(stage):
    example = yaml.safe_load((ROOT / f"configs/train_stage_{stage}.yaml").read_text())
    for place in places(example):
        for value in WRONG:
            given = Config(Path("c.yaml"), changed(example, place, value))
            try:
                assert isinstance(checked(given), TrainConfig)
            except UserError as error:
                assert str(error).startswith("c.yaml: "), (place, value)
