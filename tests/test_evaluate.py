"""evaluate.py: pairs of videos, metrics, refused arguments, and networks supplied by the user."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dancer import OneByOne
from media import write_video
from tolerance import rounding
from torch import Tensor, nn

import evaluate
from musepose.evaluation.pairs import Instruments, check_pairs, compare, find_pairs
from musepose.media.video_reader import read_frames
from musepose.pose.types import People
from musepose.utils.errors import UserError

SIDE = 32
# Means of the bytes of six pictures in float64, and decibels of them; roots of what would be zero are its root.
EXACT = rounding(6 * SIDE * SIDE * 3, 100, torch.float64)


def write_noise(path: Path, seed: int, frames: int = 6, side: int = SIDE) -> Path:
    """Smooth random pictures that change from frame to frame."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(40, 216, (frames, side // 8, side // 8, 3))
    return write_video(path, [block.repeat(8, 0).repeat(8, 1).astype(np.uint8) for block in blocks])


@pytest.fixture
def videos(tmp_path: Path) -> tuple[str, str]:
    return str(write_noise(tmp_path / "result.mp4", 1)), str(write_noise(tmp_path / "truth.mp4", 2))


def scores(tmp_path: Path, *arguments: str) -> dict:
    path = tmp_path / "scores.json"
    assert evaluate.main([*arguments, "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_the_figures_of_a_pair_are_those_of_its_frames(tmp_path: Path, videos: tuple[str, str], capsys):
    figures = scores(tmp_path, "--pairs", *videos)["all"]
    result, truth = (np.stack([*read_frames(path)]).astype(float) for path in videos)
    errors = np.square(result - truth).mean(axis=(1, 2, 3))
    assert figures["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / errors)), abs=EXACT)
    changes = np.diff(result, axis=0), np.diff(truth, axis=0)
    assert figures["change_ratio"] == pytest.approx(np.abs(changes[0]).mean() / np.abs(changes[1]).mean(), rel=EXACT)
    assert figures["change_error"] == pytest.approx(np.abs(changes[0] - changes[1]).mean(), rel=EXACT)
    assert f"{figures['psnr']:.2f}" in capsys.readouterr().out


def test_a_video_beside_itself_has_the_best_figures(tmp_path: Path, videos: tuple[str, str]):
    figures = scores(tmp_path, "--pairs", videos[0], videos[0])["all"]
    assert (figures["psnr"], figures["change_ratio"], figures["change_error"]) == (100, 1, 0)
    assert figures["ssim"] == pytest.approx(1, abs=EXACT)


def test_a_still_ground_truth_has_no_ratio(tmp_path: Path):
    still = write_video(tmp_path / "still.mp4", [np.full((SIDE, SIDE, 3), 90, np.uint8)] * 3)
    assert scores(tmp_path, "--pairs", str(still), str(still))["all"]["change_ratio"] is None


def test_lengths_must_match_unless_frames_are_given(tmp_path: Path, videos: tuple[str, str]):
    longer = str(write_noise(tmp_path / "longer.mp4", 2, frames=8))
    with pytest.raises(UserError, match="6 frames.*8: compare the first ones with --frames"):
        evaluate.main(["--pairs", videos[0], longer])
    with pytest.raises(UserError, match="--frames is 7.*has 6"):
        evaluate.main(["--pairs", videos[0], longer, "--frames", "7"])
    assert scores(tmp_path, "--pairs", videos[0], longer, "--frames", "5")["all"]["frames"] == 5


def test_a_result_of_every_second_frame(tmp_path: Path, videos: tuple[str, str]):
    frames = [*read_frames(videos[1])]
    every_second = str(write_video(tmp_path / "second.mp4", frames[::2], stream_options={"crf": "1"}))
    figures = scores(tmp_path, "--pairs", every_second, videos[1], "--truth_step", "2")["all"]
    assert figures["frames"] == 3
    assert figures["psnr"] > 30  # two encodings apart; another frame of the truth gives about 12


def test_sizes_must_match_unless_resized(tmp_path: Path, videos: tuple[str, str]):
    larger = str(write_noise(tmp_path / "larger.mp4", 2, side=2 * SIDE))
    with pytest.raises(UserError, match="32 x 32.*64 x 64: give --resize"):
        evaluate.main(["--pairs", videos[0], larger])
    assert scores(tmp_path, "--pairs", videos[0], larger, "--resize")["all"]["frames"] == 6


def test_pairs_from_a_list_count_from_its_folder(tmp_path: Path):
    (tmp_path / "list.csv").write_text("# result, truth\na.mp4, truths/b c.mp4\n\n/x/d.mp4,e.mp4\n")
    expected = [(tmp_path / "a.mp4", tmp_path / "truths/b c.mp4"), (Path("/x/d.mp4"), tmp_path / "e.mp4")]
    assert find_pairs([str(tmp_path / "list.csv")]) == expected
    (tmp_path / "list.txt").write_text("a.mp4 b.mp4\n")
    assert find_pairs([str(tmp_path / "list.txt")]) == [(tmp_path / "a.mp4", tmp_path / "b.mp4")]


def test_pairs_from_folders_go_by_name(tmp_path: Path):
    for name in ("results/a.mp4", "results/b.mp4", "truths/a.mov", "truths/b.mp4", "truths/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_pairs([str(tmp_path / "results"), str(tmp_path / "truths")])
    assert [(a.name, b.name) for a, b in found] == [("a.mp4", "a.mov"), ("b.mp4", "b.mp4")]
    (tmp_path / "truths/b.mp4").unlink()
    with pytest.raises(UserError, match="b.mp4 has no ground truth"):
        find_pairs([str(tmp_path / "results"), str(tmp_path / "truths")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "a.mp4"], "1 paths"),
        (["--pairs", "a.mp4", "nowhere.mp4"], "does not exist"),
        (["--pairs", "nowhere.txt"], "does not exist"),
        ([], "required"),
        (["--puppets", "--resize"], "--resize belongs to --pairs"),
        (["--pairs", "a.mp4", "b.mp4", "--steps", "5"], "--steps belongs to --puppets"),
        (["--pairs", "a.mp4", "b.mp4", "--frames", "0"], "--frames is 0"),
        (["--puppets", "--clip_frames", "1"], "at least 2"),
        (["--puppets", "--weights", "nowhere"], "nowhere.*is missing"),
        (["--puppets", "--json", "scores.csv"], "end its name in .json"),
    ],
)
def test_invalid_arguments_are_refused(arguments: list[str], message: str):
    with pytest.raises(UserError, match=message):
        evaluate.main(arguments)


def test_flags_without_their_metric_are_refused(videos: tuple[str, str]):
    with pytest.raises(UserError, match="--fvd_frames has no effect without --fvd"):
        evaluate.main(["--pairs", *videos, "--fvd_frames", "3"])


class Distance(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)


class Features(nn.Module):
    """Two features per clip, if called with the options of the widely used I3D file."""

    def forward(
        self, clips: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        if rescale or resize or not return_features or clips.shape[1:] != (3, 2, 224, 224):
            raise ValueError("not as wanted")
        return torch.stack([clips.mean(dim=(1, 2, 3, 4)), clips[:, :, 0].mean(dim=(1, 2, 3))], dim=1)


def save_network(path: Path, network: nn.Module) -> str:
    torch.jit.script(network).save(str(path))
    return str(path)


def test_lpips_gets_pictures_from_minus_one_to_one(tmp_path: Path, videos: tuple[str, str]):
    network = save_network(tmp_path / "lpips.pt", Distance())
    figures = scores(tmp_path, "--pairs", *videos, "--lpips", network)["all"]
    result, truth = (np.stack([*read_frames(path)]) / 127.5 for path in videos)
    assert figures["lpips"] == pytest.approx(np.abs(result - truth).mean(), abs=rounding(SIDE * SIDE * 3))  # float32


def test_fvd_compares_the_clips_of_all_pairs(tmp_path: Path, videos: tuple[str, str]):
    network = save_network(tmp_path / "i3d.pt", Features())
    flags = ["--fvd", network, "--fvd_frames", "2"]
    assert scores(tmp_path, "--pairs", videos[0], videos[0], *flags)["all"]["fvd"] == pytest.approx(0, abs=EXACT**0.5)
    apart = scores(tmp_path, "--pairs", *videos, *flags)["all"]["fvd"]
    means = []
    for path in videos:
        frames = np.stack([*read_frames(path)]) / 127.5 - 1
        clips = frames.reshape(3, 2, -1).mean(axis=2)
        means.append(np.array([clips.mean(axis=1), clips[:, 0]]).mean(axis=1))
    assert apart > 0.5 * np.square(means[0] - means[1]).sum() > 0  # the means' part of it, up to the resizing


def test_fvd_of_one_clip_is_refused_before_the_work(tmp_path: Path, videos: tuple[str, str], capsys):
    with pytest.raises(UserError, match="at least two clips of 4 frames"):
        evaluate.main(["--pairs", *videos, "--fvd", save_network(tmp_path / "i3d.pt", Features()), "--fvd_frames", "4"])
    assert "[1/1]" not in capsys.readouterr().out


def test_a_network_that_does_not_fit_is_a_plain_error(tmp_path: Path, videos: tuple[str, str]):
    (tmp_path / "broken.pt").write_bytes(b"no network")
    with pytest.raises(UserError, match="broken.pt is not TorchScript"):
        evaluate.main(["--pairs", *videos, "--lpips", str(tmp_path / "broken.pt")])
    features = save_network(tmp_path / "i3d.pt", Features())
    with pytest.raises(UserError, match="i3d.pt does not accept the input of --lpips"):
        evaluate.main(["--pairs", *videos, "--lpips", features])


class BrightnessDetector(OneByOne):
    """Finds one person whose joints lie the further down the brighter the picture is."""

    def __call__(self, rgb: np.ndarray) -> People:
        points = np.random.default_rng(1).random((1, 133, 2)) * 0.4
        points[0, [5, 6]], points[0, [11, 12]] = (0.5, 0.1), (0.5, 0.35)  # shoulders and hips: a torso of 0.25
        points[..., 1] += rgb.mean() / 255
        height, width = rgb.shape[:2]
        return People(np.array([[0, 0, width, height]]), np.ones(1), points, np.ones((1, 133)), size=(width, height))


def test_poses_are_compared_in_torso_lengths(tmp_path: Path):
    videos = [
        write_video(tmp_path / f"{level}.mp4", [np.full((SIDE, SIDE, 3), level, np.uint8)] * 3) for level in (100, 151)
    ]
    brightness = [next(iter(read_frames(path))).mean() / 255 for path in videos]
    [pair] = check_pairs([tuple(videos)], None, 1, False)
    figures = compare(pair, Instruments(detector=BrightnessDetector()))
    assert figures["pose_distance"] == pytest.approx((brightness[1] - brightness[0]) / 0.25, rel=EXACT)
    assert figures["pose_near"] == 0
