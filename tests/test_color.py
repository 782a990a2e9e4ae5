"""Colours and shapes of videos: HDR, tags of matrix and range, sample aspect ratio, letter-boxing, transparency."""

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hdr import psnr, scene, to_hdr
from media import colour_error, corners, write_video
from tolerance import POINTS, assert_near, near

from musepose.media import color
from musepose.media.tone_mapping import BT709, BT2020, HLG, PQ, to_bt709, to_sdr
from musepose.media.video_reader import probe, read_frames, read_frames_at


def bt2020_frame(picture: np.ndarray, pix_fmt: str, full_range: bool) -> av.VideoFrame:
    """By ITU-R BT.2020, table 4, without subsampling, because PyAV 17 cannot: `yuv444p` or `yuv444p10le`."""
    red, _, blue = np.moveaxis(rgb := picture / np.iinfo(picture.dtype).max, -1, 0)
    luma = rgb @ (0.2627, 0.6780, 0.0593)
    signals = luma, (blue - luma) / 1.8814, (red - luma) / 1.4746
    bits = 10 if "10" in pix_fmt else 8
    frame = av.VideoFrame(picture.shape[1], picture.shape[0], pix_fmt)
    for number, (signal, plane) in enumerate(zip(signals, frame.planes, strict=True)):
        low, span = (0, 2**bits - 1) if full_range else (16 << bits - 8, (224 if number else 219) << bits - 8)
        levels = np.rint(signal * span + (1 << bits - 1 if number else low)).clip(0, 2**bits - 1)
        rows = np.zeros((picture.shape[0], plane.line_size // (2 if bits == 10 else 1)), "<u2" if bits == 10 else "u1")
        rows[:, : picture.shape[1]] = levels
        plane.update(rows)
    return frame


def write_tagged(
    path: Path,
    pictures: list[np.ndarray],  # RGB, uint8 or uint16
    *,
    matrix: int = 2,  # codes of ITU-T H.273; 2: not stated
    transfer: int = 2,
    primaries: int = 2,
    full_range: bool = False,
    pix_fmt: str = "yuv444p10le",
    encoded_by: int | None = None,  # the matrix in fact; default: `matrix`
    ratio: Fraction | None = None,  # sample aspect ratio
) -> Path:
    """A lossless video whose colour tags are as stated: FFV1 in Matroska, or with `ratio` H.264 in MOV."""
    codec, container = ("ffv1", "matroska") if ratio is None else ("libx264", "mov")
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25, options={} if ratio is None else {"qp": "0"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_trc, context.color_primaries = matrix, transfer, primaries
        context.color_range = 2 if full_range else 1
        if ratio is not None:
            context.sample_aspect_ratio = ratio
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.dtype == np.uint8 else "rgb48le")
            by = encoded_by or (BT709 if pix_fmt == "gray" else matrix)
            if av.VideoFormat(pix_fmt).is_rgb:
                frame = frame.reformat(format=pix_fmt)
            elif by == BT2020:
                frame = bt2020_frame(picture, pix_fmt, full_range)
            else:
                level = "JPEG" if full_range else "MPEG"
                flags = color.exact_scaling()
                frame = frame.reformat(format=pix_fmt, dst_colorspace=by, dst_color_range=level, interpolation=flags)
            frame.colorspace, frame.color_range = matrix, 2 if full_range else 1
            frame.color_trc, frame.color_primaries = transfer, primaries
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def first(path: Path) -> np.ndarray:
    return next(read_frames(path))


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("matrix", [BT2020, 2])
def test_hdr_becomes_sdr(tmp_path, transfer, matrix):
    picture = scene() // 2 + 60  # no highlights
    signal = np.rint(65535 * to_hdr(picture, transfer)).astype(np.uint16)
    path = write_tagged(
        tmp_path / "a.mkv", [signal] * 2, matrix=matrix, transfer=transfer, primaries=BT2020, encoded_by=BT2020
    )
    assert psnr(first(path), picture) > 40
    assert psnr(read_frames_at(path, [1])[1], picture) > 40


def test_highlights_are_rolled_off_not_clipped():
    """PQ codes of 203, 400 and 1000 cd/m², ITU-R BT.2408: SDR white stays bright, brighter light differs from it."""
    white, bright, peak = to_sdr(np.array([[0.5807] * 3, [0.6530] * 3, [0.7518] * 3]), PQ, BT2020)[:, 0]
    # Of a code's four digits half a unit is 0.05 % of the light there, and less of its level.
    assert 0.93 < white < bright < peak == near(1, 1e-3)


def test_reference_white_of_pq_and_hlg_is_alike():
    """ITU-R BT.2408, table 1: 58 % of PQ and 75 % of HLG are one level, 38 % and 38 % another."""
    for pq, hlg in (
        (0.5807, 0.75),
        (0.38, 0.38),
    ):
        # Whole per cent: half of one is 5 % of PQ's light there, and 2 % of a level below 0.5.
        assert_near(to_sdr(np.full(3, pq), PQ, BT2020), to_sdr(np.full(3, hlg), HLG, BT2020), 0.01)


def test_the_gamut_matrix_is_the_published_one():
    published = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]  # BT.2087
    assert_near(to_bt709(BT2020), published, 0.5e-4 + POINTS)  # four digits
    assert_near(to_bt709(11).sum(axis=1), 1)  # DCI's white becomes white


@pytest.mark.parametrize("matrix", [1, 5, 6, 7, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_matrix_and_range_are_those_of_the_tags(tmp_path, matrix, full_range):
    picture = corners(64, 48)
    path = write_tagged(tmp_path / "a.mkv", [picture], matrix=matrix, full_range=full_range, pix_fmt="yuv444p")
    assert np.abs(first(path).astype(int) - picture).max() <= 3  # three roundings to whole levels


@pytest.mark.parametrize("height, matrix", [(718, 5), (720, 1)])
def test_untagged_video_is_taken_as_players_do(tmp_path, height, matrix):
    picture = corners(64, height)
    path = write_tagged(tmp_path / "a.mkv", [picture], encoded_by=matrix, pix_fmt="yuv444p")
    assert np.abs(first(path).astype(int) - picture).max() <= 3


@pytest.mark.parametrize("matrix", [8, 11, 14])
def test_a_rare_matrix_is_read_as_bt709_and_said_once(tmp_path, caplog, matrix):
    color._warn.cache_clear()
    picture = corners(64, 48)
    path = write_tagged(tmp_path / "a.mkv", [picture] * 2, matrix=matrix, encoded_by=BT709, pix_fmt="yuv444p")
    with caplog.at_level(logging.WARNING):
        assert all(np.abs(frame.astype(int) - picture).max() <= 3 for frame in read_frames(path))
        first(path)
    assert len(caplog.records) == 1
    assert "a.mkv: its colour matrix" in caplog.text and str(matrix) in caplog.text and "BT.709" in caplog.text


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p16le", "gbrp10le", "bgr0", "gray", "nv12"])
def test_pixel_formats(tmp_path, pix_fmt):
    picture = np.full((48, 64, 3), (70, 140, 210), np.uint8)
    if pix_fmt == "gray":
        picture[...] = 123
    codec_format = "yuv420p" if pix_fmt == "nv12" else pix_fmt
    path = write_tagged(tmp_path / "a.mkv", [picture], matrix=1, pix_fmt=codec_format)
    assert np.abs(first(path).astype(int) - picture).max() <= 3


def test_the_matrix_of_grey_video_does_not_matter(tmp_path, caplog):
    color._warn.cache_clear()
    path = write_tagged(tmp_path / "a.mkv", [np.full((48, 64, 3), 123, np.uint8)], matrix=14, pix_fmt="gray")
    assert np.abs(first(path).astype(int) - 123).max() <= 1 and not caplog.records


def test_ordinary_video_is_converted_as_ever(tmp_path):
    """Tagged and untagged SDR: the same bytes as from FFmpeg's scaler alone."""
    for matrix in (1, 5, 2):
        path = write_tagged(tmp_path / "a.mkv", [scene()], matrix=matrix, pix_fmt="yuv420p")
        with av.open(str(path)) as container:
            plain = next(container.decode(video=0)).reformat(format="rgb24", interpolation=color.exact_scaling())
            np.testing.assert_array_equal(first(path), plain.to_ndarray())


@pytest.mark.parametrize("ratio, size", [(Fraction(4, 3), (85, 48)), (Fraction(1, 2), (64, 96)), (None, (64, 48))])
def test_sample_aspect_ratio(tmp_path, ratio, size):
    path = write_tagged(tmp_path / "a.mkv", [corners(64, 48)] * 3, matrix=1, pix_fmt="yuv444p", ratio=ratio)
    info = probe(path)
    assert (info.width, info.height) == size
    assert first(path).shape == (size[1], size[0], 3) == read_frames_at(path, [2])[2].shape
    assert colour_error(first(path)) <= 3


@pytest.mark.parametrize("ratio", [Fraction(1, 50), Fraction(50)])
def test_an_absurd_sample_aspect_ratio_is_ignored(tmp_path, ratio):
    path = write_tagged(tmp_path / "a.mkv", [corners(64, 48)], matrix=1, pix_fmt="yuv444p", ratio=ratio)
    assert (probe(path).width, probe(path).height) == (64, 48)


def joined(path: Path, *sizes: tuple[int, int]) -> Path:
    """An MPEG transport stream whose size changes: streams of ten frames, one behind the other."""
    data = b""
    for width, height in sizes:
        part = path.with_name(f"{width}x{height}.ts")
        write_video(part, [np.full((height, width, 3), 200, np.uint8)] * 10, codec="libx264", container="mpegts")
        data += part.read_bytes()
    path.write_bytes(data)
    return path


def test_another_shape_is_letter_boxed(tmp_path):
    frames = list(read_frames(joined(tmp_path / "a.ts", (128, 96), (48, 96))))
    assert {frame.shape for frame in frames} == {(96, 128, 3)}
    assert frames[0].min() > 180
    last = frames[-1]
    assert last[:, 42:86].min() > 180 and last[:, :38].max() < 20 and last[:, 90:].max() < 20


def test_the_same_shape_at_another_size_fills_the_picture(tmp_path):
    frames = list(read_frames(joined(tmp_path / "a.ts", (128, 96), (64, 48))))
    assert frames[-1].shape == (96, 128, 3) and frames[-1].min() > 180


def test_another_sample_aspect_ratio_is_letter_boxed(tmp_path):
    """As where a broadcast changes from 4 : 3 to 16 : 9; with B pictures, which are shown later than decoded."""
    data = b""
    for number, ratio in enumerate((Fraction(1), Fraction(2))):
        with av.open(str(tmp_path / f"{number}.ts"), "w", format="mpegts") as output:
            stream = output.add_stream("libx264", rate=25, options={"bf": "3"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.sample_aspect_ratio = ratio
            for picture in range(20):
                level = np.full((48, 64, 3), 150 + 4 * picture, np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(level, format="rgb24")))
            output.mux(stream.encode(None))
        data += (tmp_path / f"{number}.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(data)
    frames = list(read_frames(tmp_path / "a.ts"))
    assert len(frames) == 40 and {frame.shape for frame in frames} == {(48, 64, 3)}
    assert all(frame.min() > 130 for frame in frames[:20])
    assert all(frame[14:34].min() > 130 and max(frame[:10].max(), frame[38:].max()) < 20 for frame in frames[20:])


def test_transparency_lies_on_white(tmp_path):
    picture = np.dstack([corners(64, 48), np.full((48, 64), 255, np.uint8)])
    picture[24:, :, 3] = 0
    with av.open(str(tmp_path / "a.mov"), "w") as output:
        stream = output.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "argb"
        frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="argb")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    frame = first(tmp_path / "a.mov")
    np.testing.assert_array_equal(frame[:24], corners(64, 48)[:24])
    assert frame[24:].min() == 255


def test_odd_sizes_keep_their_colours(tmp_path):
    path = write_tagged(
        tmp_path / "a.mkv", [np.full((33, 35, 3), (70, 140, 210), np.uint8)], matrix=1, pix_fmt="yuv420p"
    )
    frame = first(path)
    assert frame.shape == (33, 35, 3) and np.abs(frame.astype(int) - (70, 140, 210)).max() <= 3


def test_a_display_matrix_turns_square_pixels(tmp_path):
    """A frame that is both turned and anamorphic: the ratio belongs to the stored frame."""
    stored = np.ascontiguousarray(np.rot90(corners(48, 64)))
    path = write_tagged(tmp_path / "a.mkv", [stored], matrix=1, pix_fmt="yuv444p", ratio=Fraction(2))
    with av.open(str(path)) as container:
        frame, stream = next(container.decode(video=0)), container.streams.video[0]
        converter = color.FrameConverter(frame, stream)
        converter._matrix = (0, 1, -1, 0)  # as phones write it
        assert converter(frame).shape == (128, 48, 3)
