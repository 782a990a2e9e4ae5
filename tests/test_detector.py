"""YOLOX and RTMPose behind their door: the same tensors, the same figures as mm's own inference, plain errors."""

import json
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tolerance import MARGIN, network_rounding

from musepose.pose.detectors.dwpose.detector import PoseDetector, _Network, mm_compat, mm_globals, resize_for_detection
from musepose.pose.detectors.dwpose.rtmpose import Rtmpose
from musepose.pose.detectors.dwpose.yolox import Yolox
from musepose.pose.types import VISIBLE_SCORE
from musepose.utils.errors import UserError
from puppet.pose_pictures import make_shots
from puppet.world import HELD_OUT
from random_models import mm_weights

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return mm_weights.tiny_files(tmp_path_factory.mktemp("mm"))


@pytest.fixture(scope="module")
def detector(files):
    return PoseDetector(**files)


def picture(height=400, width=300, seed=0):
    """Bright and dark rectangles, in which the random networks see some persons."""
    generator = np.random.default_rng(seed)
    rgb = np.full((height, width, 3), 255, np.uint8)
    for _ in range(12):
        y, x = generator.integers(0, height), generator.integers(0, width)
        rgb[y : y + generator.integers(20, 200), x : x + generator.integers(20, 200)] = generator.integers(0, 256, 3)
    return rgb


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
    """A nested config as {path: value}, leaving out what only training uses."""
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
    """What happens to a picture before the network: sizes, padding and its value."""
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


def test_keypoints_are_averaged_over_the_mirrored_picture(detector):
    seen = []
    hook = detector._dwpose.model.backbone.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    detector(picture())
    hook.remove()
    pictures, mirrored = seen[0].chunk(2)
    assert torch.equal(mirrored, pictures.flip(-1))


@pytest.mark.parametrize("case", ["dwpose_people", "dwpose_nobody"])
def test_detector_input_shape_golden(case):
    data = json.loads((GOLDEN / case / "case.json").read_text())
    width, height = data["image_size"]
    small = resize_for_detection(picture(height, width), data["detect_resolution"])
    assert list(small.shape) == data["detector_input_shape"]


def test_shrinking_averages_and_growing_keeps_a_flat_colour():
    stripes = np.zeros((1024, 1024, 3), dtype=np.uint8)
    stripes[::2] = 200
    assert np.ptp(resize_for_detection(stripes, 512)) == 0  # area averaging; any point sampling would leave stripes
    assert set(resize_for_detection(np.full((100, 120, 3), 77, np.uint8), 512).ravel()) == {77}


def mm_reference(files, rgb):
    """Boxes and keypoints of the resized picture by the packages' own functions, and that picture's size."""
    with mm_compat.quiet():
        from mmdet.apis import inference_detector
        from mmpose.apis import inference_topdown

    bgr = np.ascontiguousarray(resize_for_detection(rgb, 512)[..., ::-1])
    yolox, dwpose = _Network("mmdet", files["yolox_config"]), _Network("mmpose", files["dwpose_config"])
    for network, key in ((yolox, "yolox_ckpt"), (dwpose, "dwpose_ckpt")):
        content = torch.load(files[key], weights_only=False)  # written by this test
        network.model.load_state_dict(content["state_dict"])
        network.model.cfg = network.config
    with yolox._scope():
        found = inference_detector(yolox.model, bgr).pred_instances.cpu().numpy()
    dwpose.model.dataset_meta = dwpose.dataset_meta()
    persons = (found.labels == 0) & (found.scores > 0.5)

    def points(boxes):
        with dwpose._scope():
            return [result.pred_instances for result in inference_topdown(dwpose.model, bgr, boxes)]

    return found.bboxes[persons], points, np.array(bgr.shape[1::-1])


def same_crops(monkeypatch) -> None:
    """Have ours see mm's crop, which comes first, and compare both.

    OpenCV looks at places on a grid of 1/32 pixel. Corners are float32, below 1024 pixels: two of them err by 2^-14, so
    that 2 · 32 · 2^-14 of the places, across and along, are taken for those beside, and levels change by up to 255 / 32
    each time. A network makes more of that than of its own rounding.
    """
    warp, crops = cv2.warpAffine, []

    def warp_and_compare(picture, matrix, size, dst=None, **options):
        made = warp(picture, matrix, size, **options)
        if dst is None:  # mm's, in BGR
            crops[:] = [made]
            return made
        off = np.abs(made.astype(int) - crops[0][..., ::-1])
        assert off.max() <= 2 * 255 / 32 + 1 and (off > 0).mean() < MARGIN * 2 * 32 * 2**-14
        dst[:] = crops[0][..., ::-1]
        return dst

    monkeypatch.setattr(cv2, "warpAffine", warp_and_compare)


def scores_rounding(detector) -> float:
    """Bound for a keypoint's score, which is a logit, from RTMPose's figures for a random crop."""
    model, crop = detector._dwpose.model, 4 * torch.rand(1, 3, 384, 288, generator=torch.Generator().manual_seed(0)) - 2
    return network_rounding(lambda: torch.cat(model.head.forward(model.extract_feat(crop)), -1), model)


def boxes_rounding(detector, rgb: np.ndarray) -> float:
    """Bound for the edges of its boxes in pixels of the network's input; only the coarsest level sees anybody."""
    model, seen = detector._yolox.model, []
    hook = model.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    detector(rgb)
    hook.remove()

    def edges() -> torch.Tensor:
        centre, log_sides = model(seen[0], None, mode="tensor")[1][2].chunk(2, 1)
        return 32 * torch.cat([centre - log_sides.exp() / 2, centre + log_sides.exp() / 2])

    return network_rounding(edges, model)


@pytest.mark.parametrize("height, width", [(400, 300), (500, 900)])
def test_equals_mm_inference(files, detector, height, width, monkeypatch):
    """Folding the batch norms changes the rounding and so the boxes: enough for a random network's keypoints to leap.

    So both get mmdet's box.
    """
    rgb = picture(height, width)
    people = detector(rgb)
    assert not people.fallback and len(people.boxes) > 1, "the case must have people"
    assert people.size == (width, height)
    boxes, points, seen = mm_reference(files, rgb)
    scale = np.tile(np.array([width, height]) / seen, 2)
    off, bound = [], scores_rounding(detector)
    edges = boxes_rounding(detector, rgb) * max(width, height) / 640
    same_crops(monkeypatch)
    for box in people.boxes:
        original = boxes[np.abs(boxes * scale - box).max(axis=1).argmin()]
        np.testing.assert_allclose(box, original * scale, rtol=0, atol=edges)
        (expected,) = points(original[None])
        with mm_compat.quiet():
            keypoints, scores = detector._dwpose([(resize_for_detection(rgb, 512), original)])
        off.append(np.abs(keypoints[0] - expected.keypoints[0]).max(axis=-1))
        np.testing.assert_allclose(scores[0], expected.keypoint_scores[0], rtol=0, atol=bound)
    assert (np.concatenate(off) < 1e-3).mean() > 0.995  # a tie of two maxima is decided by rounding


def test_trained_networks_find_what_they_find_in_mm():
    """The same persons, and their keypoints to half a pixel, or where two bins are tied to one bin."""
    puppets = ROOT / "pretrained_weights/puppet/dwpose"
    files = dict(yolox_config=ROOT / "configs/puppet/yolox.py", yolox_ckpt=puppets / "yolox.pth")
    files |= dict(dwpose_config=ROOT / "configs/puppet/dwpose.py", dwpose_ckpt=puppets / "dwpose.pth")
    off, bins = [], []
    pictures = [frame for shot in (HELD_OUT, HELD_OUT + 1) for frame in make_shots(shot)]
    for shot, people in zip(pictures, PoseDetector(**files).detect([shot.image for shot in pictures]), strict=True):
        boxes, points, seen = mm_reference(files, shot.image)
        scale = np.tile(np.array(people.size) / seen, 2)
        assert len(people.boxes) == len(boxes) and not people.fallback
        for box, keypoints, scores in zip(people.boxes, people.keypoints, people.scores, strict=True):
            original = boxes[np.abs(boxes * scale - box).max(axis=1).argmin()]
            np.testing.assert_allclose(box, original * scale, atol=1e-2)
            (expected,) = points(original[None])
            seen_by_both = expected.keypoint_scores[0] > VISIBLE_SCORE
            np.testing.assert_allclose(scores, expected.keypoint_scores[0], atol=1e-2)
            off.append(np.linalg.norm((keypoints - expected.keypoints[0] / seen) * people.size, axis=-1)[seen_by_both])
            width, height = (box[2:] - box[:2]) * 1.25
            bins.append(np.full(seen_by_both.sum(), max(width / 192, height / 256) / 2))
    off, bins = np.concatenate(off), np.concatenate(bins)
    assert (off < 0.5).mean() > 0.995
    assert (off < 1.5 * bins + 0.01).all()  # a tie along and one across make √2


def test_people_found_are_those_left_by_the_selection(files, detector):
    people = detector(picture())
    boxes, *_ = mm_reference(files, picture())
    assert 1 < len(people.boxes) <= len(boxes)
    assert (np.diff(people.box_scores) <= 0).all() and (people.box_scores > 0.5).all()


def test_nobody_found_takes_the_whole_picture(tmp_path):
    files = mm_weights.tiny_files(tmp_path, people=-1000.0)
    rgb = picture(400, 300)
    people = PoseDetector(**files)(rgb)
    assert people.fallback and people.boxes.tolist() == [[0, 0, 300, 400]] and people.box_scores.tolist() == [0]
    boxes, points, seen = mm_reference(files, rgb)
    assert len(boxes) == 0
    (expected,) = points(None)  # mmpose's own fallback
    np.testing.assert_allclose(people.keypoints[0] * seen, expected.keypoints[0], atol=1e-3)


def test_networks_see_bgr(detector):
    seen = []
    hook = detector._yolox.model.backbone.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    rgb = np.zeros((640, 640, 3), np.uint8)
    rgb[..., 0] = 200  # red
    detector(rgb)
    hook.remove()
    assert seen[0][0].amax(dim=(1, 2)).tolist() == [0, 0, 200]


def test_several_pictures_at_once_equal_one_by_one(detector):
    pictures = [picture(400, 300, seed=1), picture(320, 320, seed=2), picture(300, 400, seed=3)]
    for together, alone in zip(detector.detect(pictures), map(detector, pictures), strict=True):
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(together.scores, alone.scores, atol=0.01)
        # A random network's maxima are nearly tied, and rounding may decide between two far-off places.
        moved = np.abs(together.keypoints - alone.keypoints).max(axis=-1) > 1e-5
        assert moved.mean() < 0.01


def test_calls_leave_no_default_scope_behind(detector):
    from mmengine.registry import DefaultScope

    before = DefaultScope.get_current_instance()
    detector(picture(64, 64))
    after = DefaultScope.get_current_instance()
    assert (before and before.scope_name) == (after and after.scope_name)


def test_published_extras_are_read_past(files):
    """The DWPose file of the fixture holds real loss curves: open pickles of mmengine's HistoryBuffer."""
    content = torch.load(files["dwpose_ckpt"], weights_only=False)
    assert content["message_hub"]["log_scalars"]["train/loss"].mean() == 0.375
    with pytest.raises(pickle.UnpicklingError), torch.serialization.safe_globals([]):
        torch.load(files["dwpose_ckpt"], weights_only=True)
    with torch.serialization.safe_globals(mm_globals()):
        read = torch.load(files["dwpose_ckpt"], weights_only=True)
    assert read["message_hub"]["runtime_info"] == dict(iter=7, loss=0.5)
    np.testing.assert_array_equal(read["meta"]["dataset_meta"]["sigmas"], content["meta"]["dataset_meta"]["sigmas"])


@pytest.mark.parametrize("code, dtype", [("core", "<f4"), ("_core", "<i8")])
def test_arrays_of_both_numpy_generations_are_read(tmp_path, code, dtype):
    """Pickles name numpy's internals, and numpy 2 renamed them."""
    path = tmp_path / "arrays.pth"
    torch.save(
        dict(a=np.arange(3, dtype=dtype), b=np.arange(3, dtype=dtype)[1]), path, _use_new_zipfile_serialization=False
    )
    old = b"numpy._core.multiarray" if b"numpy._core.multiarray" in path.read_bytes() else b"numpy.core.multiarray"
    path.write_bytes(path.read_bytes().replace(old, f"numpy.{code}.multiarray".encode()))
    with torch.serialization.safe_globals(mm_globals()):
        read = torch.load(path, weights_only=True)
    assert read["a"].tolist() == [0, 1, 2] and read["b"] == 1


class Evil:
    """Pickled, it is a call."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


def altered(files, folder, key="dwpose_ckpt", change=None, **extras):
    """`files` with one checkpoint replaced by a changed copy."""
    content = torch.load(files[key], weights_only=False)
    content |= extras
    if change:
        content["state_dict"] = OrderedDict(content["state_dict"])
        change(content["state_dict"])
    path = folder / files[key].name
    torch.save(content, path)
    return {**files, key: path}


@pytest.mark.parametrize("call", [(exec, ("raise SystemExit('ran')",)), (getattr, (np.ndarray, "tofile"))])
def test_code_in_a_checkpoint_never_runs(files, tmp_path, call):
    with pytest.raises(UserError, match="dw-ll_ucoco_384.pth is a pickle that brings code along"):
        PoseDetector(**altered(files, tmp_path, extra=Evil(call)))


def test_truncated_checkpoint(files, tmp_path):
    cut = tmp_path / "yolox_l_8x8_300e_coco.pth"
    cut.write_bytes(files["yolox_ckpt"].read_bytes()[:100_000])
    with pytest.raises(UserError, match="yolox_l_8x8_300e_coco.pth is truncated.*download_weights.py"):
        PoseDetector(**{**files, "yolox_ckpt": cut})


@pytest.mark.parametrize("key", ["yolox_ckpt", "dwpose_ckpt"])
def test_missing_weights_say_how_to_get_them(files, tmp_path, key):
    with pytest.raises(UserError, match="gone.pth is missing: run `python download_weights.py`"):
        PoseDetector(**{**files, key: tmp_path / "gone.pth"})


def test_missing_config_names_its_option(files, tmp_path):
    with pytest.raises(UserError, match="gone.py is missing: give the config with --dwpose_config"):
        PoseDetector(**{**files, "dwpose_config": tmp_path / "gone.py"})


@pytest.mark.parametrize(
    "text", ["model = dict(", "model = dict(type='YOLOX', backbone=dict(type='Nothing'))", "x = 1"]
)
def test_config_that_is_none(files, tmp_path, text):
    config = tmp_path / "config.py"
    config.write_text(text)
    with pytest.raises(UserError, match="config.py"):
        PoseDetector(**{**files, "yolox_config": config})


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
def test_config_that_asks_for_another_kind_of_work(files, tmp_path, key, old, new):
    text = files[key].read_text()
    assert old in text
    config = tmp_path / "config.py"
    config.write_text(text.replace(old, new))
    with pytest.raises(
        UserError, match="config.py does not describe a model of mm.*use the config from configs/dwpose"
    ):
        PoseDetector(**{**files, key: config})


@pytest.mark.parametrize("ours, theirs", FULL_CONFIGS.items(), ids=["yolox", "dwpose"])
def test_full_mm_configs_are_understood_too(ours, theirs):
    mm_compat.prepare()
    folder = Path(sys.modules[theirs.split("/")[0]].__file__).parents[1]
    if "yolox" in theirs:
        assert Yolox(_Network("mmdet", folder / theirs).model, _Network("mmdet", ours).config).side == 640
    else:
        network = _Network("mmpose", folder / theirs)
        assert Rtmpose(network.model, network.config, []).size == (288, 384)


def test_known_boxes_give_the_keypoints_that_detection_gives(detector):
    rgb = picture()
    people = detector(rgb)
    (again,) = detector.detect_inside([detector.prepare(rgb)], [people.boxes], [people.box_scores])
    np.testing.assert_allclose(again.boxes, people.boxes, atol=1e-9)
    np.testing.assert_array_equal(again.box_scores, people.box_scores)
    assert np.abs(again.keypoints - people.keypoints).mean() < 0.01  # the boxes' last bit may decide between maxima
    assert again.size == people.size and not again.fallback


def test_large_pictures_go_through_in_smaller_batches(files):
    small, large = (PoseDetector(**files, detect_resolution=resolution) for resolution in (512, 4096))
    assert small.frames_at_once == 2 and large.frames_at_once == 1  # on a CPU, 640 x 640 pixels each


def test_no_pictures_no_people(detector):
    assert detector.detect([]) == []


def test_missing_tensor_is_named(files, tmp_path):
    changed = altered(files, tmp_path, change=lambda tensors: tensors.pop("head.cls_x.weight"))
    with pytest.raises(UserError, match=r"dw-ll_ucoco_384.pth: 1 of .* first is head.cls_x.weight \[576, 32\]"):
        PoseDetector(**changed)


def test_misshapen_tensor_is_named(files, tmp_path):
    changed = altered(files, tmp_path, change=lambda tensors: tensors.update({"head.cls_x.weight": torch.ones(2, 3)}))
    with pytest.raises(UserError, match=r"head.cls_x.weight is \[2, 3\] where \[576, 32\] is expected"):
        PoseDetector(**changed)


def test_exchanged_checkpoints_do_not_load(files):
    with pytest.raises(UserError, match="dw-ll_ucoco_384.pth.* of another architecture"):
        PoseDetector(**{**files, "yolox_ckpt": files["dwpose_ckpt"], "dwpose_ckpt": files["yolox_ckpt"]})


def test_surplus_tensors_get_one_line(files, tmp_path, caplog):
    extra = {"teacher.a": torch.ones(1), "teacher.b": torch.ones(1)}
    PoseDetector(**altered(files, tmp_path, change=lambda tensors: tensors.update(extra)))
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("musepose")]
    assert "2 tensors" in line and "teacher.a" in line


def test_counters_that_only_training_reads_may_lack(files, tmp_path, detector):
    def drop(tensors):
        for name in [name for name in tensors if name.endswith("num_batches_tracked")]:
            del tensors[name]

    people = PoseDetector(**altered(files, tmp_path, change=drop))(picture())
    np.testing.assert_array_equal(people.keypoints, detector(picture()).keypoints)


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_device_that_is_not_there(files, device):
    with pytest.raises(UserError, match=f"--device {device} is not available"):
        PoseDetector(**files, device=device)


def test_resolution_too_small(files):
    with pytest.raises(UserError, match="detect_resolution is 0"):
        PoseDetector(**files, detect_resolution=0)


def test_user_is_not_bothered_with_warnings(files, capfd, recwarn):
    PoseDetector(**files)(picture())
    captured = capfd.readouterr()
    assert (captured.out, captured.err, [str(w.message) for w in recwarn]) == ("", "", [])
