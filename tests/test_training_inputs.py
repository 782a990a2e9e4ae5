"""Bad input to the training scripts: one line, exit status 2, before any model loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState
from media import truncate
from tiny_training import SIZE, random_animator, write_workplace

import musepose.training.trainer
from musepose.cli.train import STAGE1_FILES, main
from musepose.training.config import read_config
from musepose.training.data.manifest import load_manifest, save_manifest
from musepose.training.model import save_models
from musepose.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_workplace(tmp_path_factory.mktemp("training"))
    save_models(random_animator(motion=False), folder / "stage_1" / "weights", "fp32", None)
    return folder


@pytest.fixture(autouse=True)
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__) -> None:
        raise AssertionError("a model is loaded before the input is checked")

    monkeypatch.setattr(musepose.training.trainer, "load_models", refuse)


def start(folder: Path, stage: int, *arguments: str) -> None:
    main(f"stage_{stage}", ["--config", str(folder / f"train_stage_{stage}.yaml"), *arguments])


def test_good_input_gets_as_far_as_the_models(workplace: Path) -> None:
    for stage in (1, 2):
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(AssertionError, match="a model is loaded"):
            start(workplace, stage, f"output_dir={workplace}/good")
    assert not (workplace / "good" / "weights").exists()


@pytest.mark.parametrize(
    ("stage", "override", "message"),
    [
        (1, "solver.learnin_rate=1", "learnin_rate"),
        (1, "optimizer=adam", "optimizer"),
        (1, "solver.learning_rate=fast", "fast"),
        (1, "solver.learning_rate=0", "learning_rate is 0"),
        (1, "solver.max_grad_norm=0", "max_grad_norm is 0"),
        (1, "solver.adam_beta1=1", "adam_beta1 is 1"),
        (1, "data.train_bs=0", "train_bs is 0: give 1 to 4096"),
        (1, "data.train_bs=99999999999", "train_bs is 99999999999"),
        (1, "data.num_workers=100000", "num_workers is 100000"),
        (1, "data.train_width=8000000", "train_width is 8000000"),
        (1, "data.train_bs=1.5", "1.5"),
        (1, "uncond_ratio=1.1", "uncond_ratio is 1.1: give 0 to 1"),
        (1, "data.train_width=100", "train_width is 100, not a multiple of 8: take 96 or 104"),
        (1, "data.train_height=32", "train_height is 32"),
        (1, "solver.optimizer=sgd", "solver.optimizer is sgd: choose from adamw, muon"),
        (1, "solver.lr_scheduler=steep", "lr_scheduler is steep: choose from constant"),
        (1, "solver.mixed_precision=fp8", "mixed_precision is fp8: choose from no, fp16, bf16"),
        (1, "save_dtype=int8", "save_dtype is int8"),
        (1, "noise_scheduler_kwargs.prediction_type=sample", "prediction_type is 'sample': give v_prediction"),
        (1, "noise_scheduler_kwargs.betas=1", "noise_scheduler_kwargs"),
        (1, "data.meta_paths=[/no/meta.json]", "/no/meta.json is missing"),
        (1, "data.meta_paths=[]", "no clips to train on"),
        (1, "base_model_path=/no", "/no/unet/config.json is missing"),
        (1, "vae_model_path=/no", "/no/config.json is missing"),
        (1, "image_encoder_path=/no", "/no/config.json is missing"),
        (1, "inference_config=/no.yaml", "/no.yaml is missing: check inference_config"),
        (1, "controlnet_openpose_path=/no.bin", "/no.bin is missing"),
        (1, "report_to=pigeon", "pigeon"),
        (1, "solver.mixed_precision=fp16", "fp16, which needs a GPU"),
        (1, "val.test_cases={/no.png: []}", "/no.png"),
        (2, "mm_path=/no.ckpt", "/no.ckpt is missing"),
        (2, "stage1_ckpt_dir=/no", "/no/reference_unet.pth is missing: train stage 1 first"),
        (2, "stage1_ckpt_dir=null", "stage1_ckpt_dir is not given"),
        (2, "data.n_sample_frames=9", "8 frames, 3 of 3 clips have fewer than data.n_sample_frames, 9"),
    ],
)
def test_a_bad_setting(workplace: Path, tmp_path: Path, stage: int, override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        start(workplace, stage, f"output_dir={tmp_path}", override)
    assert message in str(error.value) and ": " in str(error.value)


def test_a_missing_validation_video(workplace: Path, tmp_path: Path) -> None:
    from media import write_picture

    picture = write_picture(tmp_path / "a.png", "rgb")
    with pytest.raises(UserError, match="/no.mp4"):
        start(workplace, 1, f"output_dir={tmp_path}", f"val.test_cases={{{picture}: [/no.mp4]}}")


def test_two_validation_cases_of_one_name(workplace: Path, tmp_path: Path) -> None:
    from media import write_picture

    picture = write_picture(tmp_path / "a.png", "rgb")
    clips = load_manifest([workplace / "meta.json"])
    other = tmp_path / clips[0].poses.name
    other.write_bytes(clips[0].poses.read_bytes())
    cases = f"val.test_cases={{{picture}: [{clips[0].poses}, {other}]}}"
    with pytest.raises(UserError, match=f"two cases would both write a_{other.stem}.mp4"):
        start(workplace, 1, f"output_dir={tmp_path}", cases)


def test_missing_weights_are_an_error_before_anything_loads(workplace: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="diffusion_pytorch_model.bin is missing"):
        start(workplace, 1, f"output_dir={tmp_path}", "from_scratch=false")
    (tmp_path / "config.json").write_bytes((workplace / "vae" / "config.json").read_bytes())
    with pytest.raises(UserError, match="diffusion_pytorch_model.bin is missing"):
        start(workplace, 1, f"output_dir={tmp_path}", f"vae_model_path={tmp_path}")


def test_the_models_to_start_from_are_not_overwritten(workplace: Path, tmp_path: Path) -> None:
    for name in STAGE1_FILES:
        (tmp_path / name).write_bytes(b"content")
    with pytest.raises(UserError, match="reference_unet.pth would be overwritten"):
        start(workplace, 1, f"output_dir={tmp_path}/out", f"save_dir={tmp_path}", f"start_from={tmp_path}")


def test_motion_modules_that_are_missing_or_too_short(workplace: Path, tmp_path: Path) -> None:
    out = f"output_dir={tmp_path}"
    with pytest.raises(UserError, match="use_motion_module: false"):
        start(workplace, 2, out, f"inference_config={workplace}/inference_stage_1.yaml")
    config = yaml.safe_load((workplace / "inference.yaml").read_text())
    config["unet_additional_kwargs"]["motion_module_kwargs"]["temporal_position_encoding_max_len"] = 3
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="n_sample_frames is 4, the motion modules know 3 positions"):
        start(workplace, 2, out, f"inference_config={tmp_path}/short.yaml")


@pytest.mark.parametrize(("folder", "key"), [("vae", "latent_channels"), ("image_encoder", "projection_dim")])
def test_models_that_do_not_fit_each_other(workplace: Path, tmp_path: Path, folder: str, key: str) -> None:
    config = json.loads((workplace / folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: 16}))
    with pytest.raises(UserError, match=f"{key} is 16 where"):
        start(workplace, 1, f"output_dir={tmp_path}", f"{folder.replace('vae', 'vae_model')}_path={tmp_path}")


@pytest.mark.parametrize("cached", [False, True])
def test_a_clip_that_is_gone(workplace: Path, tmp_path: Path, cached: bool) -> None:
    clips = load_manifest([workplace / "meta.json"])
    gone = tmp_path / "gone.mp4"
    save_manifest(tmp_path / "meta.json", [clips[0], type(clips[0])(gone, *list(vars(clips[1]).values())[1:])])
    cache = [f"data.cache_latents={tmp_path}/cache"] if cached else []
    with pytest.raises(UserError, match=r"gone.mp4"):
        start(workplace, 1, f"output_dir={tmp_path}", f"data.meta_paths=[{tmp_path}/meta.json]", *cache)


def test_a_broken_clip(tmp_path: Path) -> None:
    folder = write_workplace(tmp_path)
    truncate(folder / "pose-2.mp4")
    with pytest.raises(UserError, match="video-2.mp4 cannot be trained on"):
        start(folder, 1)


@pytest.mark.parametrize("key", ["output_dir", "save_dir"])
def test_a_folder_that_cannot_be_written(workplace: Path, tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot write"):
        start(workplace, 1, f"output_dir={tmp_path}", f"{key}={tmp_path}/file/deep")


def test_states_of_an_earlier_run_are_not_overwritten(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "states" / "step-0000100").mkdir(parents=True)
    with pytest.raises(UserError, match="holds states of an earlier run: give --resume latest"):
        start(workplace, 1, f"output_dir={tmp_path}")
    with pytest.raises(UserError, match="is not a training state"):
        start(workplace, 1, f"output_dir={tmp_path}", "--resume", f"{tmp_path}/states/step-0000200")


def test_an_incomplete_state_is_ignored(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "states" / ".step-0000100.part").mkdir(parents=True)
    with pytest.raises(AssertionError, match="a model is loaded"):
        start(workplace, 1, f"output_dir={tmp_path}")


@pytest.mark.parametrize(("text", "message"), [("a: [", "cannot be read as YAML"), ("seed: 1", "is missing")])
def test_a_file_that_is_no_config(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_config(tmp_path / "a.yaml")
    with pytest.raises(UserError, match="b.yaml is missing"):
        read_config(tmp_path / "b.yaml")


def test_shipped_configs_are_whole() -> None:
    paths = [*ROOT.glob("configs/train_stage_*.yaml"), *ROOT.glob("configs/puppet/train_stage_*.yaml")]
    assert len(paths) == 4 and all(read_config(path).data.train_width > SIZE for path in paths)


def test_puppets_are_validated_as_the_demo_samples_them() -> None:
    config = read_config(ROOT / "configs/puppet/train_stage_2.yaml")
    demo = yaml.safe_load((ROOT / "configs/puppet/demo.yaml").read_text())
    assert config.val.test_cases == demo["test_cases"]
    assert (config.val.num_inference_steps, config.val.guidance_scale) == (demo["steps"], demo["cfg"])
    assert (config.val.shared_noise, config.data.n_sample_frames) == (demo["shared_noise"], demo["context_frames"])
    assert (config.data.train_width, config.data.train_height) == (demo["width"], demo["height"])


@pytest.mark.parametrize("stage", [1, 2])
def test_the_scripts_print_one_line_with_status_2(workplace: Path, stage: int) -> None:
    script = str(ROOT / f"train_stage_{stage}.py")
    config = str(workplace / f"train_stage_{stage}.yaml")
    message = subprocess.run(
        [sys.executable, script, "--config", config, "data.train_bs=0"], cwd=ROOT, capture_output=True, text=True
    )
    assert message.returncode == 2 and message.stdout == ""
    assert message.stderr.startswith("error: ") and message.stderr.count("\n") == 1


def test_help_needs_no_torch() -> None:
    program = (
        "import sys\nfrom musepose.cli.train import main\n"
        "try:\n    main('stage_1', ['--help'])\n"
        "except SystemExit as end:\n    sys.exit(end.code or (3 if 'torch' in sys.modules else 0))"
    )
    message = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert message.returncode == 0 and "--resume" in message.stdout
