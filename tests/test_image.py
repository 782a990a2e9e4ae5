"""read_image: unusual images are read as viewers show them, bad ones give one line."""

import struct
import zlib

import numpy as np
import pytest
from media import CORNERS, corners, truncate, write_empty, write_picture, write_text
from PIL import Image, ImageCms

from musepose.media.image import IMAGE_SUFFIXES, read_image
from musepose.media.video_reader import list_media
from musepose.utils.errors import UserError


def corner_colours(image: Image.Image) -> np.ndarray:
    width, height = image.size
    places = [(x, y) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return np.array([image.getpixel(place) for place in places])


@pytest.mark.parametrize("suffix", [one for one in IMAGE_SUFFIXES if one not in (".heic", ".heif")])
def test_every_listed_suffix_is_read(tmp_path, suffix):
    image = read_image(write_picture(tmp_path / f"tänzer 1{suffix}", "rgb"))
    assert image.mode == "RGB" and image.size == (64, 48)
    assert np.abs(corner_colours(image) - CORNERS).max() <= 8  # JPEG and WebP at their default quality


@pytest.mark.parametrize("kind, tolerance", [("palette", 8), ("cmyk", 8), ("exif", 4)])
def test_colours_and_orientation(tmp_path, kind, tolerance):
    path = tmp_path / ("a.png" if kind == "palette" else "a.jpg")
    image = read_image(write_picture(path, kind))
    assert image.mode == "RGB" and image.size == (64, 48)
    assert np.abs(corner_colours(image) - CORNERS).max() <= tolerance


@pytest.mark.parametrize("kind", ["grey", "grey16"])
def test_grey_keeps_its_levels(tmp_path, kind):
    expected = np.asarray(Image.fromarray(corners(64, 48)).convert("L"))
    image = np.asarray(read_image(write_picture(tmp_path / "a.png", kind)))
    np.testing.assert_array_equal(image, np.dstack([expected] * 3))


def test_transparency_stands_on_white(tmp_path):
    colours = corner_colours(read_image(write_picture(tmp_path / "a.png", "rgba")))
    np.testing.assert_array_equal(colours, [CORNERS[0], CORNERS[1], (255, 255, 255), (255, 255, 255)])


def test_half_transparency_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (8, 8), (200, 0, 100, 128)).save(tmp_path / "a.png")
    assert np.abs(np.array(read_image(tmp_path / "a.png").getpixel((4, 4))) - (227, 127, 177)).max() <= 1  # rounded


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_stands_on_white(tmp_path, mode):
    image = Image.new("RGB", (8, 8), (0, 0, 0)).convert(mode)
    image.save(tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else image.getpixel((0, 0)))
    assert read_image(tmp_path / "a.png").getpixel((4, 4)) == (255, 255, 255)


def test_grey_with_alpha_stands_on_white(tmp_path):
    Image.new("LA", (8, 8), (90, 0)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").getpixel((4, 4)) == (255, 255, 255)


def test_a_broken_colour_profile_is_ignored(tmp_path):
    Image.new("RGB", (8, 8), (10, 200, 30)).save(tmp_path / "a.png", icc_profile=b"not a profile")
    assert read_image(tmp_path / "a.png").getpixel((4, 4)) == (10, 200, 30)


def test_a_colour_profile_is_honoured(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # does not fit RGB: ignored
    Image.new("RGB", (8, 8), (10, 200, 30)).save(tmp_path / "lab.png", icc_profile=profile)
    assert read_image(tmp_path / "lab.png").getpixel((4, 4)) == (10, 200, 30)
    Image.new("RGB", (8, 8), (100, 100, 100)).save(tmp_path / "linear.png", icc_profile=linear_profile())
    assert np.abs(np.array(read_image(tmp_path / "linear.png").getpixel((4, 4))) - 168).max() <= 2  # sRGB's own curve


def linear_profile() -> bytes:
    """The sRGB profile with its tone curves replaced by the identity (an ICC 'curv' of no entries)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace("sRGB".encode("utf-16-be"), "ABCD".encode("utf-16-be"))
    for index in range(struct.unpack(">I", data[128:132])[0]):
        name, offset, _ = struct.unpack(">4sII", data[132 + 12 * index : 144 + 12 * index])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + 12] = b"curv" + bytes(8)
            data[132 + 12 * index + 8 : 144 + 12 * index] = struct.pack(">I", 12)
    return bytes(data)


def test_broken_exif_does_not_refuse_the_picture(tmp_path):
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert read_image(tmp_path / "a.jpg").size == (8, 8)


def missing(path):
    return path


def folder(path):
    path.mkdir()
    return path


def cut_off(path):
    return truncate(write_picture(path, "rgb", 400, 300))


def too_large(path):
    """A PNG whose header claims 60000 x 60000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))
    return path


def floating(path):
    Image.new("F", (8, 8), 0.5).save(path, format="TIFF")
    return path


@pytest.mark.parametrize(
    "make, words",
    [
        (missing, "does not exist"),
        (folder, "is a folder"),
        (write_empty, "is empty"),
        (write_text, "not a picture"),
        (cut_off, "damaged or cut off"),
        (too_large, "too many pixels"),
        (floating, "floating-point pixels"),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_bad_pictures_are_refused(tmp_path, make, words, suffix):
    path = make(tmp_path / f"bild{suffix}")
    with pytest.raises(UserError, match=words) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and ": " in str(caught.value)


def test_list_media_sorts_and_filters(tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "c.txt", "ä 2.webp"):
        write_empty(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_media(tmp_path, IMAGE_SUFFIXES)] == ["a.jpg", "b.PNG", "ä 2.webp"]
    assert list_media(tmp_path / "c.txt", IMAGE_SUFFIXES) == [tmp_path / "c.txt"]


def test_list_media_refuses_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list_media(tmp_path / "nowhere", IMAGE_SUFFIXES)
    with pytest.raises(UserError, match="holds no"):
        list_media(tmp_path, IMAGE_SUFFIXES)


def test_a_file_without_permission_is_refused(own_folder):
    path = write_picture(own_folder / "a.png", "rgb")
    path.chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        read_image(path)
