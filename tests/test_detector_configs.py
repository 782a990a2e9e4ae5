"""The mm configs of YOLOX and RTMPose: equal to the packages' own, and refused where they ask for other work."""

import json
import sys
from pathlib import Path

import pytest
from tiny_detector import tiny_mm_files  # noqa: F401, a fixture

from musepose.pose.detectors.dwpose.detector import PoseDetector, _Network, mm_compat
from musepose.pose.detectors.dwpose.rtmpose import Rtmpose
from musepose.pose.detectors.dwpose.yolox import Yolox
from musepose.utils.errors import UserError
from random_models import mm_weights

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    "name, scope, config",
    [
        ("yolox_l", "mmdet", mm_weights.YOLOX_CONFIG),
        ("dwpose_l", "mmpose", mm_weights.DWPOSE_CONFIG),
    ],
)
def test_configs_build_the_published_models(name, scope, config):
    mm_compat.prepare()
    built = {key: list(tensor.shape) for key, tensor in _Network(scope, config).model.state_dict().items()}
    assert built == json.loads((GOLDEN / "keys" / f"{name}.json").read_text())


FULL_CONFIGS = {
    mm_weights.YOLOX_CONFIG: "mmdet/.mim/configs/yolox/yolox_l_8xb8-300e_coco.py",
    mm_weights.DWPOSE_CONFIG: "mmpose/.mim/configs/wholebody_2d_keypoint/rtmpose/coco-wholebody/"
    "rtmpose-l_8xb32-270e_coco-wholebody-384x288.py",
}


def settings(config, prefix=""):
    """A nested config as {path: value}, without training-only keys."""
    pairs = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in pairs:
        path = f"{prefix}.{key}"
        if (
            isinstance(value, (dict, list))
            and value
            and not isinstance(value[0] if isinstance(value, list) else 0, float)
        ):
            yield from settings(value, path)
        elif not path.startswith((".train", ".head.loss", ".bbox_head.loss", ".data_preprocessor.batch_augments")):
            yield path, value.replace("SyncBN", "BN") if isinstance(value, str) else value


def picture_steps(config):
    """The preprocessing steps: sizes, padding and padding value."""
    names = ("Resize", "Pad", "GetBBoxCenterScale", "TopdownAffine")
    return [step.to_dict() for step in config.test_dataloader.dataset.pipeline if step.type in names]


@pytest.mark.parametrize("ours, theirs", FULL_CONFIGS.items(), ids=["yolox", "dwpose"])
def test_configs_agree_with_those_that_mm_packages_ship(ours, theirs):
    mm_compat.prepare()
    from mmengine.config import Config

    folder = Path(sys.modules[theirs.split("/")[0]].__file__).parents[1]
    ours, theirs = (Config.fromfile(path) for path in (ours, folder / theirs))
    model, expected = (dict(settings(config.model)) for config in (ours, theirs))
    assert {path: expected.get(path) for path in model} == model
    assert picture_steps(ours) == picture_steps(theirs)


@pytest.mark.parametrize("ours, theirs", FULL_CONFIGS.items(), ids=["yolox", "dwpose"])
def test_configs_of_the_mm_packages_work_too(ours, theirs):
    mm_compat.prepare()
    folder = Path(sys.modules[theirs.split("/")[0]].__file__).parents[1]
    if "yolox" in theirs:
        assert Yolox(_Network("mmdet", folder / theirs).model, _Network("mmdet", ours).config).side == 640
    else:
        network = _Network("mmpose", folder / theirs)
        assert Rtmpose(network.model, network.config, []).size == (288, 384)


def test_missing_config_names_its_option(files, tmp_path):
    with pytest.raises(UserError, match="gone.py is missing: give the config with --dwpose_config"):
        PoseDetector(**{**files, "dwpose_config": tmp_path / "gone.py"})


@pytest.mark.parametrize(
    "text", ["model = dict(", "model = dict(type='YOLOX', backbone=dict(type='Nothing'))", "x = 1"]
)
def test_invalid_config(files, tmp_path, text):
    config = tmp_path / "config.py"
    config.write_text(text)
    with pytest.raises(UserError, match="config.py"):
        PoseDetector(**{**files, "yolox_config": config})


@pytest.mark.parametrize(
    "name, text",
    [
        ("evil.yaml", "model: !!python/object/apply:os.mkdir [harm]"),
        ("evil.yml", "model: 1"),
        ("evil.json", '{"custom_imports": {"imports": ["antigravity"]}}'),
        ("evil", "model = 1"),
    ],
)
def test_only_python_serves_as_config(files, tmp_path, monkeypatch, name, text):
    """mmengine's other formats run code as well, and look as if they did not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name} is no .py file: mm configs are Python code"):
        PoseDetector(**{**files, "yolox_config": tmp_path / name})
    assert [path.name for path in tmp_path.iterdir()] == [name] and "antigravity" not in sys.modules


def test_a_full_temporary_folder_is_not_blamed_on_the_config(files, tmp_path):
    (tmp_path / "config.py").write_text("raise OSError(28, 'No space left on device')")  # as of mmengine's copy
    with pytest.raises(UserError, match="cannot write to the temporary folder .* or set TMPDIR"):
        PoseDetector(**{**files, "yolox_config": tmp_path / "config.py"})


@pytest.mark.parametrize("text", ["1 / 0", "[][0]", "raise RuntimeError('a' * 9999)", "def f(): f()\nf()"])
def test_whatever_the_code_of_a_config_raises(files, tmp_path, text):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(UserError, match="config.py cannot be read as an mm config") as error:
        PoseDetector(**{**files, "yolox_config": tmp_path / "config.py"})
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "key, old, new",
    [
        ("yolox_config", "scale=(640, 640)", "scale=(640, 480)"),
        ("yolox_config", "pad_to_square=True", "size=(640, 640)"),
        ("yolox_config", 'type="nms", iou', 'type="soft_nms", iou'),
        ("yolox_config", "pad_size_divisor=32", "pad_size_divisor=33"),
        ("dwpose_config", "use_dark=False", "use_dark=True"),
        ("dwpose_config", 'type="TopdownAffine"', 'type="TopdownAffine", use_udp=True'),
        ("dwpose_config", "bgr_to_rgb=True", "bgr_to_rgb=False"),
    ],
)
def test_config_of_another_kind_of_model(files, tmp_path, key, old, new):
    text = files[key].read_text()
    assert old in text
    config = tmp_path / "config.py"
    config.write_text(text.replace(old, new))
    with pytest.raises(
        UserError, match="config.py does not describe a model of mm.*use the config from configs/dwpose"
    ):
        PoseDetector(**{**files, key: config})
