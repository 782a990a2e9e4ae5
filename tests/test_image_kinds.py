"""Pictures of phones, cameras and tools: very large ones, HDR, gamma, HEIC, animations, and what is no picture."""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hdr import psnr, scene, to_hdr
from media import colour_error, corners, write_picture
from PIL import Image, features

from musepose.media import image as image_module
from musepose.media.image import read_image
from musepose.media.png import read_chunks
from musepose.media.tone_mapping import BT2020, HLG, PQ, SRGB, to_bt709
from musepose.utils.errors import UserError


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(path: Path, pixels: np.ndarray, *chunks: bytes) -> Path:
    """A PNG of 8 or 16 bits, grey, RGB or RGBA, with more chunks behind its header."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBB3x", width, height, 8 * pixels.itemsize, {1: 0, 3: 2, 4: 6}[channels])
    rows = pixels.astype(">u2" if pixels.itemsize == 2 else np.uint8)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def cicp(primaries: int, transfer: int) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, 0, 1]))


def read(path: Path) -> np.ndarray:
    return np.asarray(read_image(path))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_16_bits(tmp_path, channels):
    pixels = np.full((4, 8, channels), 20000, np.uint16)
    pixels[:, 4:] = 40100  # whose low byte is not its high byte
    transparent = chunk(b"tRNS", struct.pack(f">{channels}H", *[40100] * channels))
    picture = read(write_png(tmp_path / "a.png", pixels, transparent))
    assert (picture[:, 4:] == 255).all() and np.abs(picture[:, :4].astype(int) - 20000 / 257).max() <= 1  # rounded


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_beside_a_gamma(tmp_path, channels):
    pixels = np.full((4, 8, channels), 20000, np.uint16)
    pixels[:, 4:] = 40100
    transparent = chunk(b"tRNS", struct.pack(f">{channels}H", *[40100] * channels))
    linear = chunk(b"gAMA", struct.pack(">I", 100000))
    picture = read(write_png(tmp_path / "a.png", pixels, linear, transparent))
    expected = 255 * (1.055 * (20000 / 65535) ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    assert (picture[:, 4:] == 255).all() and np.abs(picture[:, :4] - expected).max() <= 1  # rounded


def test_reserved_codes_of_cicp_change_nothing(tmp_path):
    path = write_png(tmp_path / "a.png", corners(64, 48), cicp(200, 200))
    np.testing.assert_array_equal(read(path), corners(64, 48))


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error when reading image file")])
def test_too_little_memory_is_not_blamed_on_the_picture(tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(image_module, "_to_rgb", full)
    with pytest.raises(UserError, match="needs more memory than there is"):
        read_image(write_picture(tmp_path / "a.png", "rgb"))


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_hdr_png_becomes_sdr(tmp_path, transfer, kind):
    picture = scene() // 2 + 60
    signal = np.rint(np.iinfo(kind).max * to_hdr(picture, transfer, SRGB)).astype(kind)
    got = read(write_png(tmp_path / "a.png", signal, cicp(BT2020, transfer)))
    assert psnr(got, picture) > (36 if kind is np.uint8 else 45)


def test_an_hdr_png_known_by_its_profile_name(tmp_path):
    """As W3C's note has it, from before cICP."""
    picture = scene() // 2 + 60
    profile = chunk(b"iCCP", b"ITUR_2100_PQ_FULL\0\0" + zlib.compress(b"any profile, only its name counts"))
    signal = np.rint(65535 * to_hdr(picture, PQ, SRGB)).astype(np.uint16)
    assert psnr(read(write_png(tmp_path / "a.png", signal, profile)), picture) > 45


def test_hdr_with_transparency(tmp_path):
    signal = np.rint(65535 * to_hdr(np.full((8, 8, 3), 120, np.uint8), PQ, SRGB)).astype(np.uint16)
    alpha = np.zeros((8, 8, 1), np.uint16)
    alpha[:4] = 65535
    got = read(write_png(tmp_path / "a.png", np.dstack([signal, alpha]), cicp(BT2020, PQ)))
    assert np.abs(got[:4].astype(int) - 120).max() <= 1 and got[4:].min() == 255  # rounded


def test_display_p3_by_cicp(tmp_path):
    """A red that sRGB has, stated in Display P3."""
    linear = np.linalg.inv(to_bt709(12)) @ (0.5, 0.1, 0.1)
    signal = 1.055 * linear ** (1 / 2.4) - 0.055
    pixels = np.broadcast_to(np.rint(65535 * signal), (8, 8, 3)).astype(np.uint16)
    got = read(write_png(tmp_path / "a.png", pixels, cicp(12, SRGB)))
    expected = 255 * (1.055 * np.array((0.5, 0.1, 0.1)) ** (1 / 2.4) - 0.055)
    assert np.abs(got[0, 0] - expected).max() <= 1  # rounded


@pytest.mark.parametrize("gamma, expected", [(100000, 188), (45455, 128), (47000, 128), (55556, 145)])
def test_gamma_of_png(tmp_path, gamma, expected):
    """Linear light of 0.5 is 188 in sRGB; gAMA within 5 % of sRGB's says nothing; 1/1.8 is old Macs'."""
    pixels = np.full((8, 8, 3), 128, np.uint8)
    got = read(write_png(tmp_path / "a.png", pixels, chunk(b"gAMA", struct.pack(">I", gamma))))
    assert abs(int(got[0, 0, 0]) - expected) <= 1  # rounded
    with_srgb = write_png(tmp_path / "b.png", pixels, chunk(b"gAMA", struct.pack(">I", gamma)), chunk(b"sRGB", b"\0"))
    assert read(with_srgb)[0, 0, 0] == 128


@pytest.mark.parametrize("values", [[31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000], [0] * 8])
def test_chromaticities_of_srgb_or_of_nothing_change_nothing(tmp_path, values):
    chunks = chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"cHRM", struct.pack(">8I", *values))
    np.testing.assert_array_equal(read(write_png(tmp_path / "a.png", scene(), *chunks)), scene())


def test_grey_with_gamma(tmp_path):
    path = write_png(tmp_path / "a.png", np.full((8, 8, 1), 128, np.uint8), chunk(b"gAMA", struct.pack(">I", 100000)))
    assert np.abs(read(path).astype(int) - 188).max() <= 1  # rounded


@pytest.mark.parametrize("name", [b"IDAT", b"gAMA", b"IEND"])
def test_a_wrong_checksum_is_told(tmp_path, name):
    path = write_png(tmp_path / "a.png", scene(), chunk(b"gAMA", struct.pack(">I", 45455)))
    data = bytearray(path.read_bytes())
    at = data.rindex(name)
    length = struct.unpack(">I", data[at - 4 : at])[0]
    data[at + 4 + length] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"damaged or cut off .wrong checksum in its part {name.decode()}"):
        read_image(path)


def test_chunks_of_other_files_are_none(tmp_path):
    assert read_chunks(write_picture(tmp_path / "a.jpg", "rgb")) == {}


@pytest.mark.parametrize("suffix, kind", [(".jpg", "rgb"), (".png", "rgb"), (".png", "palette"), (".png", "grey16")])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_pictures_are_scaled_down(tmp_path, monkeypatch, suffix, kind, orientation):
    """With a limit of 1000 pixels in place of 89 million."""
    monkeypatch.setattr(image_module, "MAX_PIXELS", 1000)
    monkeypatch.setattr(image_module, "_BAND", 2)
    path = write_picture(tmp_path / f"a{suffix}", kind, 160, 90)
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as stored:
        stored.copy().save(path, exif=exif)
    picture = read_image(path)
    long, short = picture.size[:: 1 if orientation == 1 else -1]
    assert 20 <= long <= 40 and abs(long / short - 160 / 90) < 0.1
    upright = picture if orientation == 1 else picture.transpose(Image.Transpose.ROTATE_90)
    if kind == "rgb":
        assert colour_error(np.asarray(upright)) <= 12  # JPEG's default quality
    else:
        whole = np.asarray(Image.fromarray(corners(160, 90)).convert("RGB" if kind == "palette" else "L"))
        assert (
            abs(np.asarray(upright).mean() - whole.mean()) < 4
        )  # JPEG, and edges that do not fall on the smaller grid


def test_a_200_megapixel_photo_is_read(tmp_path):
    """Of one colour, so that the file is small and quickly made; decoded at half its size or less."""
    Image.new("L", (16384, 12288), 77).save(tmp_path / "a.jpg", quality=50)
    picture = read_image(tmp_path / "a.jpg")
    # A block's mean is stored in steps of 16 / 8 levels at this quality.
    assert picture.size == (8192, 6144) and abs(picture.getpixel((4000, 3000))[0] - 77) <= 2


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png"])
def test_of_an_animation_the_first_frame_is_the_picture(tmp_path, suffix):
    first, second = Image.fromarray(corners(64, 48)), Image.new("RGB", (64, 48), "white")
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second], duration=40)
    assert colour_error(read(tmp_path / f"a{suffix}")) <= 12


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_of_wide_gamut(tmp_path):
    """Pillow writes no colour box of its own choice: the one in the file is changed to Display P3."""
    Image.new("RGB", (64, 64), (200, 60, 60)).save(tmp_path / "a.avif", quality=95)
    data = (tmp_path / "a.avif").read_bytes()
    at = data.index(b"colrnclx") + 8
    (tmp_path / "b.avif").write_bytes(data[:at] + struct.pack(">H", 12) + data[at + 2 :])
    plain, wide = read(tmp_path / "a.avif")[32, 32].astype(int), read(tmp_path / "b.avif")[32, 32].astype(int)
    # AVIF's quality of 95 moves a flat colour by a few levels.
    assert np.abs(plain - (200, 60, 60)).max() <= 4 and wide[0] > plain[0] + 5 and wide[1] < plain[1] - 5


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"heix"])
def test_heic_without_its_reader_names_the_remedy(tmp_path, monkeypatch, brand):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"heic" + b"mif1" + bytes(64))
    with pytest.raises(UserError, match="a.jpg is a HEIC picture: pip install -r requirements-heif.txt, or save it as"):
        read_image(tmp_path / "a.jpg")


def test_heic_is_read(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(corners(64, 48))).save(tmp_path / "a.heic", quality=95)
    assert colour_error(read(tmp_path / "a.heic")) <= 12


def test_postscript_is_no_picture(tmp_path, monkeypatch):
    """Pillow would hand it to Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="is not a picture that can be read"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_picture_of_one_pixel_or_one_row(tmp_path, size, suffix):
    Image.new("RGB", size, (80, 160, 240)).save(tmp_path / f"a{suffix}")
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture.size == size and np.abs(np.asarray(picture).astype(int) - (80, 160, 240)).max() <= 8  # JPEG, WebP


def test_a_jpeg_whose_adobe_marker_says_rgb(tmp_path):
    """Three components without the transform to YCbCr, as Photoshop writes them."""
    Image.fromarray(corners(64, 48)).save(tmp_path / "a.jpg", keep_rgb=True, quality=95, subsampling=0)
    assert colour_error(read(tmp_path / "a.jpg")) <= 8
