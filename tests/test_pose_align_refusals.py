"""Every input that pose_align.py refuses: one line, before any model loads, and no output."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dancer import dance
from media import truncate, write_empty, write_text, write_video, write_video_without_frames
from PIL import Image
from pose_align_folder import FRAMES, Folder, pose_align_folder  # noqa: F401, a fixture

from musepose.pose.keypoint_file import Keypoints
from musepose.utils.errors import UserError


def damage_first_array(path: Path) -> None:
    """Overwrite the start of the first array's compressed data with a block type that does not exist."""
    with zipfile.ZipFile(path) as file:
        start = file.infolist()[0].header_offset
    content = bytearray(path.read_bytes())
    name, extra = (int.from_bytes(content[start + at : start + at + 2], "little") for at in (26, 28))
    content[start + 30 + name + extra] = 0xFF
    path.write_bytes(content)


def break_keypoints(change: str):
    def apply(folder: Folder):
        folder.save()
        if change == "empty":
            write_empty(folder.keypoints)
        elif change == "truncated":
            truncate(folder.keypoints)
        elif change == "damaged":
            damage_first_array(folder.keypoints)
        elif change == "text":
            write_text(folder.keypoints)
        elif change == "foreign":
            np.savez(folder.keypoints, a=np.zeros(3))
        elif change == "pickle":
            np.save(folder.keypoints.with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)
            folder.keypoints.with_suffix(".npy").replace(folder.keypoints)
        elif change == "shape":
            folder.save(video_keypoints=Keypoints(np.zeros((8, 17, 2), np.float32), np.zeros((8, 17), np.float32)))
        elif change == "nan":
            points, scores = dance(FRAMES)
            points[3, 3] = np.nan
            folder.save(video_keypoints=Keypoints(points, scores))
        return ("--keypoints", folder.keypoints)

    return apply


def with_keypoints(*flags, **changes):
    def apply(folder: Folder):
        return ("--keypoints", folder.save(**changes), *flags)

    return apply


def with_files(*makers, flags=()):
    def apply(folder: Folder):
        for name, make in makers:
            make(getattr(folder, name))
        return flags

    return apply


def blocked_output(folder: Folder):
    (folder.path / "file").write_text("no folder")
    return ("--keypoints", folder.save(), "--outfn", "file/demo.mp4")


def other_video(folder: Folder):
    folder.save()
    write_video(folder.video, FRAMES, rate=12)
    return ("--keypoints", folder.keypoints)


def of_shape(name: str, width: int, height: int):
    def apply(folder: Folder):
        if name == "image":
            Image.new("RGB", (width, height)).save(folder.image)
        else:
            write_video(folder.video, FRAMES, width=width, height=height)
        return ("--keypoints", folder.save())

    return apply


BAD = {
    "picture missing": (with_files(("image", os.remove)), "ref.png does not exist"),
    "picture empty": (with_files(("image", write_empty)), "ref.png is empty"),
    "picture truncated": (with_files(("image", truncate)), "ref.png is damaged or cut off"),
    "picture is text": (with_files(("image", write_text)), "ref.png is not a picture"),
    "video missing": (with_files(("video", os.remove)), "dance.mp4 does not exist"),
    "video empty": (with_files(("video", write_empty)), "dance.mp4 is empty"),
    "video truncated": (with_files(("video", truncate)), "dance.mp4 is cut off"),
    "video is text": (with_files(("video", write_text)), "dance.mp4 is damaged or not a video"),
    "video without frames": (with_files(("video", write_video_without_frames)), "dance.mp4"),
    "align_frame negative": (with_keypoints("--align_frame", -1), "--align_frame is -1: give at least 0"),
    "align_frame behind the end": (with_keypoints("--align_frame", 8), "has 8 frames: give at most 7"),
    "align_frame behind max_frame": (with_keypoints("--align_frame", 5, "--max_frame", 4), "give at most 3"),
    "det_every": (with_keypoints("--det_every", 0), "--det_every is 0: give at least 1"),
    "max_frame negative": (with_keypoints("--max_frame", -5), "--max_frame is -5: give at least 0"),
    "no number": (with_keypoints("--max_frame", "many"), "--max_frame is .many.: give a whole number"),
    "detect_resolution": (with_keypoints("--detect_resolution", 10), "--detect_resolution is 10: give 64 to 4096"),
    "image_resolution": (with_keypoints("--image_resolution", 0), "--image_resolution is 0: give 64 to 4096"),
    "scale_from": (with_keypoints("--scale_from", "moon"), "--scale_from is moon: choose from frame, video"),
    "unknown flag": (with_keypoints("--speed", 2), "unrecognized arguments: --speed 2: see .*--help"),
    "output is a segment's name": (with_keypoints("--outfn", "a.part"), "a.part: end its name in .mp4, .mov, .mkv"),
    "output is no video": (with_keypoints("--outfn", "demo.gif"), "demo.gif: end its name in .mp4"),
    "output folder": (blocked_output, "cannot write file/demo.mp4"),
    "output is a folder": (with_keypoints("--save_keypoints", "."), "it is a folder"),
    "output is the input": (with_keypoints("--outfn", "dance.mp4"), "dance.mp4 is an output, but also"),
    "same output twice": (with_keypoints("--outfn", "a.mp4", "--outfn_align_pose_video", "./a.mp4"), "but also a.mp4"),
    "picture too elongated": (of_shape("image", 442, 40), "ref.png is 442 x 40, .*crop it to at most 10"),
    "video too elongated": (of_shape("video", 16, 180), "dance.mp4 is 16 x 180, .*crop it to at most 10"),
    "no configs": (with_files(flags=("--yolox_config", "none.py")), "none.py is missing: .*--yolox_config"),
    "no weights": (with_files(flags=("--yolox_ckpt", "none.pth")), "none.pth is missing: .*--yolox_ckpt"),
    "keypoints missing": (with_files(flags=("--keypoints", "none.npz")), "none.npz does not exist"),
    "keypoints of another video": (other_video, "made for another video"),
    "keypoints of too few frames": (with_keypoints(frames=6), "holds 6 frames, but 8 are needed: give --max_frame 6"),
    "keypoints of another resolution": (with_keypoints("--detect_resolution", 640), "give the same"),
    "nobody in the picture": (with_keypoints(image_score=0.1), "no person was found in .*ref.png"),
    "nobody in the align frame": (
        with_keypoints(missing=(0, 1)),
        "the dancer was not found in frame 0 .*--align_frame 2",
    ),
    "nobody in the video": (with_keypoints(missing=tuple(range(8))), "no person was found in .*dance.mp4"),
    **{
        f"keypoints {change}": (break_keypoints(change), "dance.npz is (empty|not a complete keypoint file)")
        for change in ("empty", "truncated", "damaged", "text", "foreign", "pickle", "shape", "nan")
    },
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name, folder):
    prepare, message = BAD[name]
    with pytest.raises(UserError, match=message) as caught:
        folder.run(*prepare(folder))
    assert "\n" not in str(caught.value) and ": " in str(caught.value)
    assert not (folder.path / "assets").exists() or folder.outputs() == []
