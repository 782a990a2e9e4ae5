"""YOLOX and RTMPose as this project calls them: same results as mm's own inference, batches, boxes, plain errors."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_detector import picture, tiny_detector, tiny_mm_files  # noqa: F401, two fixtures
from tolerance import MARGIN, POINTS, assert_near, network_rounding, rounding

from musepose.pose.detectors.dwpose.detector import PoseDetector, _Network, mm_compat, resize_for_detection
from musepose.pose.person_tracking import choose_person
from musepose.pose.types import BODY, VISIBLE_SCORE
from musepose.utils.errors import UserError
from puppet.backdrop import paint_backdrop
from puppet.pose_pictures import make_shots
from puppet.world import HELD_OUT, make_backdrop
from random_models import mm_weights

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[1]
PIXELS = rounding(10, 1000)  # of keypoints: float32 below a thousand, ten operations from a box and a bin


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
    """Compare our crop with mm's, which comes first, and give our network mm's.

    OpenCV samples on a grid of 1/32 pixel. Corners are float32 below 1024 pixels: two of them have errors of 2^-14, so
    2 · 32 · 2^-14 of the sample positions, in x and y, fall on a neighbouring grid point, and levels change by up to
    255 / 32 each time. A network amplifies that to more than its own rounding.
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
    """Error bound for a keypoint's score, which is a logit, from RTMPose's activations for a random crop."""
    model = detector._dwpose.model
    width, height = model.head.input_size
    crop = 4 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) - 2
    return network_rounding(lambda: torch.cat(model.head.forward(model.extract_feat(crop)), -1), model)


STRIDES = (8, 16, 32)  # of YOLOX's levels
GRID_ERRORS = 2 * 32 * 2**-14, 255 / 32  # share of a crop's pixels, and levels: see same_crops


def boxes_rounding(detector, rgb: np.ndarray) -> float:
    """Error bound for the edges of people's boxes, in pixels of the network's input."""
    model, seen = detector._yolox.model, []
    hook = model.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    detector(rgb)
    hook.remove()
    classes, _, objects = model(seen[0], None, mode="tensor")
    # [:, :1]: the people among mmdet's classes
    people = [c[:, :1].sigmoid() * o.sigmoid() > 0.1 for c, o in zip(classes, objects, strict=True)]

    def edges() -> torch.Tensor:
        found = []
        for stride, level, shown in zip(STRIDES, model(seen[0], None, mode="tensor")[1], people, strict=True):
            centre, log_sides = level.chunk(2, 1)
            found += [(stride * (centre + side * log_sides.exp() / 2) * shown).flatten() for side in (-1, 1)]
        return torch.cat(found)

    return network_rounding(edges, model)


def grid_rounding(detector, shot) -> float:
    """Error bound for trained keypoints' scores where a box's last bit moves the crop: GRID_ERRORS are planted."""
    random, (share, levels) = np.random.default_rng(0), GRID_ERRORS
    errors = (random.random(shot.image.shape) < share) * random.choice([-levels, levels], shot.image.shape)
    pictures = shot.image, (shot.image + errors).clip(0, 255).astype(np.uint8)
    exact, off = detector.detect_inside(pictures, [shot.boxes] * 2, [np.ones(len(shot.boxes))] * 2)
    return MARGIN * np.abs(exact.scores - off.scores).max() + scores_rounding(detector)


@pytest.mark.parametrize("height, width", [(400, 300), (500, 900)])
def test_equals_mm_inference(files, detector, height, width, monkeypatch):
    """Conv-BN fusion changes the rounding, and so the boxes, enough to move a random network's keypoints far.

    So both RTMPoses get mmdet's box.
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
    assert (np.concatenate(off) < PIXELS).mean() > 0.995  # rounding decides between equal maxima


def puppet_files() -> dict[str, Path]:
    puppets = ROOT / "pretrained_weights/puppet/dwpose"
    files = dict(yolox_config=ROOT / "configs/puppet/yolox.py", yolox_ckpt=puppets / "yolox.pth")
    return files | dict(dwpose_config=ROOT / "configs/puppet/dwpose.py", dwpose_ckpt=puppets / "dwpose.pth")


def test_trained_networks_find_what_they_find_in_mm():
    """The same people, and their keypoints to half a pixel, or to one bin where two bins are equal."""
    files = puppet_files()
    off, bins = [], []
    detector = PoseDetector(**files)
    pictures = [frame for shot in (HELD_OUT, HELD_OUT + 1) for frame in make_shots(shot)]
    bound = grid_rounding(detector, pictures[0])
    edges = boxes_rounding(detector, pictures[0].image) * max(pictures[0].image.shape) / 192
    for shot, people in zip(pictures, detector.detect([shot.image for shot in pictures]), strict=True):
        boxes, points, seen = mm_reference(files, shot.image)
        scale = np.tile(np.array(people.size) / seen, 2)
        assert len(people.boxes) == len(boxes) and not people.fallback
        for box, keypoints, scores in zip(people.boxes, people.keypoints, people.scores, strict=True):
            original = boxes[np.abs(boxes * scale - box).max(axis=1).argmin()]
            assert_near(box, original * scale, edges)
            (expected,) = points(original[None])
            seen_by_both = expected.keypoint_scores[0] > VISIBLE_SCORE
            assert_near(scores, expected.keypoint_scores[0], bound)
            off.append(np.linalg.norm((keypoints - expected.keypoints[0] / seen) * people.size, axis=-1)[seen_by_both])
            width, height = (box[2:] - box[:2]) * 1.25
            bins.append(np.full(seen_by_both.sum(), max(width / 192, height / 256) / 2))
    off, bins = np.concatenate(off), np.concatenate(bins)
    assert (off < 0.5).mean() > 0.995
    assert (off < 1.5 * bins + edges + PIXELS).all()  # equal maxima in x and in y give √2


def test_people_are_selected_among_the_boxes(files, detector):
    people = detector(picture())
    boxes, *_ = mm_reference(files, picture())
    assert 1 < len(people.boxes) <= len(boxes)
    assert (np.diff(people.box_scores) <= 0).all() and (people.box_scores > 0.5).all()


def test_without_detections_the_whole_picture_is_the_box(tmp_path):
    files = mm_weights.tiny_files(tmp_path, people=-1000.0)
    rgb = picture(400, 300)
    people = PoseDetector(**files)(rgb)
    assert people.fallback and people.boxes.tolist() == [[0, 0, 300, 400]] and people.box_scores.tolist() == [0]
    boxes, points, seen = mm_reference(files, rgb)
    assert len(boxes) == 0
    (expected,) = points(None)  # mmpose's own fallback
    assert_near(people.keypoints[0] * seen, expected.keypoints[0], PIXELS)


def test_in_the_whole_picture_only_a_clear_body_is_believed(monkeypatch):
    """Empty scenes, by day and at night, a grey and a black picture show nobody; a person whom YOLOX misses is kept."""
    detector = PoseDetector(**puppet_files())
    scenes = [paint_backdrop(make_backdrop(HELD_OUT + n), 384, 384) for n in range(4)]
    empty = [*scenes, *(scene // 5 for scene in scenes), *(np.full((384, 384, 3), grey, np.uint8) for grey in (0, 128))]
    for people in detector.detect(empty):
        assert people.fallback and choose_person(people) is None
    shot = make_shots(HELD_OUT, 384)[0]
    (expected,) = detector.detect_inside([shot.image], [shot.boxes[:1]], [np.ones(1)])
    x0, y0, x1, y1 = shot.boxes[0].round().astype(int).clip(0)
    monkeypatch.setattr(detector, "_yolox", lambda pictures: [(np.zeros((0, 4)), np.zeros(0))] * len(pictures))
    people = detector(np.ascontiguousarray(shot.image[y0:y1, x0:x1]))
    assert people.fallback and choose_person(people) == 0
    assert people.scores[0, BODY].mean() > 0.8 * expected.scores[0, BODY].mean()


def test_the_config_says_which_score_is_believed(tmp_path):
    """A random network's scores are far below 1."""
    files = mm_weights.tiny_files(tmp_path, people=-1000.0)
    for limit, kept in ((-1e9, True), (1e9, False)):
        with open(files["dwpose_config"], "a") as file:
            file.write(f"\nwhole_picture_score = {limit}\n")
        assert PoseDetector(**files)(picture(400, 300)).scores.any() == kept


def test_networks_see_bgr(detector):
    seen = []
    hook = detector._yolox.model.backbone.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    rgb = np.zeros((640, 640, 3), np.uint8)
    rgb[..., 0] = 200  # red
    detector(rgb)
    hook.remove()
    assert seen[0][0].amax(dim=(1, 2)).tolist() == [0, 0, 200]


def test_several_pictures_at_once_equal_one_by_one(detector):
    """Both networks by themselves: a box's last bit moves its crop, and a random network's scores with it."""
    pictures = [picture(400, 300, seed=1), picture(320, 320, seed=2), picture(300, 400, seed=3)]
    alone = [detector(rgb) for rgb in pictures]
    for rgb, people, one in zip(pictures, detector.detect(pictures), alone, strict=True):
        edges = boxes_rounding(detector, rgb) * max(rgb.shape) / 640
        np.testing.assert_allclose(people.boxes, one.boxes, rtol=0, atol=edges)
    boxes, box_scores = [one.boxes for one in alone], [one.box_scores for one in alone]
    together, bound = detector.detect_inside(pictures, boxes, box_scores), scores_rounding(detector)
    for people, *given in zip(together, pictures, boxes, box_scores, strict=True):
        (one,) = detector.detect_inside(*([part] for part in given))
        np.testing.assert_allclose(people.scores, one.scores, rtol=0, atol=bound)
        # A random network has nearly equal maxima, and rounding may decide between distant ones.
        moved = np.abs(people.keypoints - one.keypoints).max(axis=-1) > rounding(10)  # float32
        assert moved.mean() < 0.01


def test_calls_leave_no_default_scope_behind(detector):
    from mmengine.registry import DefaultScope

    before = DefaultScope.get_current_instance()
    detector(picture(64, 64))
    after = DefaultScope.get_current_instance()
    assert (before and before.scope_name) == (after and after.scope_name)


def test_known_boxes_give_the_keypoints_that_detection_gives(detector):
    rgb = picture()
    people = detector(rgb)
    (again,) = detector.detect_inside([detector.prepare(rgb)], [people.boxes], [people.box_scores])
    np.testing.assert_allclose(again.boxes, people.boxes, rtol=0, atol=POINTS)
    np.testing.assert_array_equal(again.box_scores, people.box_scores)
    assert np.abs(again.keypoints - people.keypoints).mean() < 0.01  # a box's last bit may decide between equal maxima
    assert again.size == people.size and not again.fallback


def test_large_pictures_go_through_in_smaller_batches(files):
    small, large = (PoseDetector(**files, detect_resolution=resolution) for resolution in (512, 4096))
    assert small.frames_at_once == 2 and large.frames_at_once == 1  # on a CPU, 640 x 640 pixels each


def test_no_pictures_no_people(detector):
    assert detector.detect([]) == []


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_unavailable_device(files, device):
    with pytest.raises(UserError, match=f"--device {device} is not available"):
        PoseDetector(**files, device=device)


def test_resolution_too_small(files):
    with pytest.raises(UserError, match="detect_resolution is 0"):
        PoseDetector(**files, detect_resolution=0)


def test_prints_no_warnings(files, capfd, recwarn):
    PoseDetector(**files)(picture())
    captured = capfd.readouterr()
    assert (captured.out, captured.err, [str(w.message) for w in recwarn]) == ("", "", [])
