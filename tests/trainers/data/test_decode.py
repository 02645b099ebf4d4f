"""Every mode that image files come in becomes 8-bit RGB, and every broken file a reason."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin, features

from trainers.data.decode import SUFFIXES, UnreadableImage, decode, decode_square

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
RAMP_OF_8_BITS = np.round(RAMP / 257)
TWO_COLOURS = Image.new("P", (2, 2), 1)
TWO_COLOURS.putpalette([9, 9, 9, 200, 0, 0])
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def decoded(encoded: bytes) -> np.ndarray:
    image = decode(encoded)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        *[(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
        *[(mode, "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F")],
        *[(mode, "JPEG") for mode in ("L", "RGB", "CMYK")],
        *[(mode, "GIF") for mode in ("1", "L", "P", "RGB", "RGBA")],
        *[(mode, "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")],
        *[(mode, "PPM") for mode in ("1", "L", "RGB", "I", "F")],
        *[(mode, "TGA") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
        *[(mode, "WEBP") for mode in ("RGB", "RGBA")],
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (32, 24), (3, 70)])
def test_every_mode_and_size_is_read(mode, form, size):
    if form == "WEBP" and not features.check("webp"):
        pytest.skip("Pillow was built without WebP")
    image = decode(encode(NOISE.resize(size).convert(mode), form))
    assert (image.mode, image.size) == ("RGB", size)


def test_lossless_rgb_is_unchanged():
    assert (decoded(encode(NOISE)) == np.asarray(NOISE)).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_grey_is_the_same_in_all_channels(form):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = decoded(encode(Image.fromarray(ramp), form))
    for channel in range(3):
        assert (pixels[..., channel] == ramp).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "BMP", "PPM"])
def test_one_bit_is_black_and_white(form):
    bits = np.array([[True, False, False], [False, True, True]])
    pixels = decoded(encode(Image.fromarray(bits), form))
    for channel in range(3):
        assert (pixels[..., channel] == bits * 255).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_a_16_bit_ramp_becomes_an_8_bit_ramp(form):
    pixels = decoded(encode(Image.fromarray(RAMP), form))
    for channel in range(3):
        assert (pixels[..., channel] == RAMP_OF_8_BITS).all()


def test_16_bit_big_endian_reads_like_little_endian():
    image = Image.frombytes("I;16B", (256, 256), RAMP.astype(">u2").tobytes())
    assert (decoded(encode(image, "TIFF"))[..., 0] == RAMP_OF_8_BITS).all()


def test_integers_above_16_bits_are_stretched_from_their_own_range():
    values = np.array([[-1000, 0, 100_000, 199_000]], dtype=np.int32)
    pixels = decoded(encode(Image.fromarray(values), "TIFF"))
    assert pixels[0, :, 0].tolist() == [0, 1, 129, 255]


def test_floats_from_0_to_1_keep_that_range():
    values = np.array([[0.2, 0.5, 0.6]], dtype=np.float32)
    assert decoded(encode(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [51, 128, 153]


def test_other_floats_are_stretched_from_their_own_finite_range():
    values = np.array([[-3, 7, 2, np.nan, np.inf, -np.inf]], dtype=np.float32)
    pixels = decoded(encode(Image.fromarray(values), "TIFF"))
    assert pixels[0, :, 0].tolist() == [0, 255, 128, 0, 255, 0]


@pytest.mark.parametrize("value", [np.nan, -5, 0, 3e38])
def test_a_float_image_of_one_value_is_black(value):
    values = np.full((2, 2), value, dtype=np.float32)
    assert (decoded(encode(Image.fromarray(values), "TIFF")) == 0).all()


def test_cmyk_ink_becomes_light():
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert decoded(encode(cyan, "TIFF"))[0, 0].tolist() == [0, 255, 255]
    assert np.abs(decoded(encode(cyan, "JPEG"))[0, 0] - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.new("RGBA", (2, 2), (200, 0, 0, 0)), {}, [255, 255, 255]),
        (Image.new("RGBA", (2, 2), (200, 0, 0, 128)), {}, [227, 127, 127]),
        (Image.new("LA", (2, 2), (0, 0)), {}, [255, 255, 255]),
        (TWO_COLOURS, {}, [200, 0, 0]),
        (TWO_COLOURS, {"transparency": 0}, [200, 0, 0]),
        (TWO_COLOURS, {"transparency": 1}, [255, 255, 255]),
        (TWO_COLOURS, {"transparency": bytes([255, 0])}, [255, 255, 255]),
        (Image.new("L", (2, 2), 9), {"transparency": 9}, [255, 255, 255]),
        (Image.new("L", (2, 2), 9), {"transparency": 8}, [9, 9, 9]),
        (Image.new("1", (2, 2), 0), {"transparency": 0}, [255, 255, 255]),
        (Image.new("RGB", (2, 2), (1, 2, 3)), {"transparency": (1, 2, 3)}, [255, 255, 255]),
    ],
)
def test_transparency_is_laid_on_white(image, options, expected):
    assert decoded(encode(image, **options))[0, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(mode, orientation):
    upright = np.asarray(decode(encode(NOISE.convert("L").convert(mode))))
    # How the camera stored it: the inverse of what the tag asks for.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](np.asarray(NOISE.convert("L").convert(mode)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert (np.asarray(decode(encoded)) == upright).all()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_with(*chunks: bytes, before: bytes = b"IDAT") -> bytes:
    encoded = encode(NOISE)
    place = encoded.index(before) - 4
    return encoded[:place] + b"".join(chunks) + encoded[place:]


def jpeg_with(marker: int, content: bytes) -> bytes:
    encoded = encode(NOISE, "JPEG")
    segment = struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    return encoded[:2] + segment + encoded[2:]


def tiff_with(tag: int, kind: int, value: Any, orientation: int = 1) -> bytes:
    notes = TiffImagePlugin.ImageFileDirectory_v2()
    notes[ExifTags.Base.Orientation] = orientation
    notes.tagtype[tag] = kind
    notes[tag] = value
    return encode(NOISE, "TIFF", tiffinfo=notes)


def avif_with_broken_exif() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "maker"
    exif[ExifTags.Base.Orientation] = 6
    encoded = encode(NOISE, "AVIF", exif=exif)
    assert encoded.count(b"MM\0*") == 1
    return encoded.replace(b"MM\0*", b"no!!")


LARGE = zlib.compress(bytes(3_000_000))
BAD_EXIF = {
    "no exif": b"no exif at all",
    "garbage": b"Exif\0\0garbage",
    "a wrong directory": b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
    "a far directory": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "nothing": b"Exif\0\0",
}
ODD_PNG_CHUNKS = {
    "text": (b"zTXt", b"workflow\0\0" + LARGE),
    "text of a language": (b"iTXt", b"workflow\0\1\0\0\0" + LARGE),
    "profile": (b"iCCP", b"profile\0\0" + LARGE),
    "profile of another packing": (b"iCCP", b"profile\0\5garbage"),
    "empty profile": (b"iCCP", b""),
    "short exif": (b"eXIf", b"x"),
    "short resolution": (b"pHYs", b"x"),
    "short animation": (b"acTL", b"x"),
}


@pytest.mark.parametrize("name", BAD_EXIF)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_corrupt_exif_costs_no_image(form, name):
    exif = BAD_EXIF[name]
    if form == "JPEG":
        exif = b"Exif\0\0" + exif.removeprefix(b"Exif\0\0")
    encoded = encode(NOISE, form, exif=exif)
    assert decode(encoded).size == NOISE.size
    assert decode_square(encoded, 8).shape == (3, 8, 8)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_an_avif_with_corrupt_exif_is_turned_by_its_own_box():
    assert decode(avif_with_broken_exif()).size == NOISE.size[::-1]


@pytest.mark.parametrize("name", ODD_PNG_CHUNKS)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_an_odd_note_in_a_png_costs_neither_pixels_nor_orientation(name, before):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    turn = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    encoded = png_with(chunk(*ODD_PNG_CHUNKS[name]), before=before)
    assert (decoded(encoded) == np.asarray(NOISE)).all()
    assert decode_square(encoded, 8).shape == (3, 8, 8)
    if name != "short exif":
        encoded = png_with(turn, chunk(*ODD_PNG_CHUNKS[name]), before=before)
        assert (decoded(encoded) == np.asarray(NOISE)[::-1, ::-1]).all()


def test_a_note_with_a_wrong_checksum_costs_no_png():
    for kind in (b"tEXt", b"eXIf"):
        encoded = png_with(chunk(kind, b"key\0value")[:-1] + b"\0")
        assert (decoded(encoded) == np.asarray(NOISE)).all()


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        (0xE0, b"JFIF\0"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"ICC_PROFILE\0\1\1garbage"),
        (0xE2, b"MPF\0II*\0\x08\0\0\0"),
        (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\xff\xff"),
        (0xEE, b"Adobe"),
        (0xFE, b"\xff\xfe"),
    ],
)
def test_an_odd_segment_in_a_jpeg_changes_no_pixel(marker, content):
    assert (decoded(jpeg_with(marker, content)) == decoded(encode(NOISE, "JPEG"))).all()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        (ExifTags.Base.InterColorProfile, 7, b"garbage"),
        (ExifTags.Base.XMLPacket, 3, (1, 2, 3)),
        (ExifTags.Base.ExifOffset, 4, 4_000_000_000),
        (ExifTags.Base.GPSInfo, 2, "text"),
    ],
)
def test_an_odd_tag_in_a_tiff_costs_neither_pixels_nor_orientation(tag, kind, value, orientation):
    turned = NOISE.transpose(Image.Transpose.ROTATE_270) if orientation == 6 else NOISE
    assert (decoded(tiff_with(tag, kind, value, orientation)) == np.asarray(turned)).all()


def test_an_orientation_beside_tags_that_cannot_be_read_is_honoured():
    fields = [(0x010F, 2, 99, 0xFFFFFF), (0x0112, 3, 1, 6 << 16), (0x8769, 4, 1, 0xFFFFFFF0)]
    entries = b"".join(struct.pack(">HHII", *field) for field in fields)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(fields)) + entries + bytes(4)
    for form in ("JPEG", "PNG", "WEBP"):
        assert decode(encode(NOISE, form, exif=exif)).size == NOISE.size[::-1]


def test_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for form in ("GIF", "PNG", "TIFF"):
        encoded = encode(frames[0], form, save_all=True, append_images=frames[1:])
        assert decoded(encoded)[0, 0].tolist() == [255, 0, 0]


def _with_flipped_checksum(chunk: bytes) -> bytes:
    encoded = bytearray(encode(NOISE))
    place = encoded.index(chunk)
    length = struct.unpack(">I", encoded[place - 4 : place])[0]
    encoded[place + 4 + length] ^= 0xFF
    return bytes(encoded)


def _png_that_claims(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    encoded = encode(NOISE)
    return encoded[:12] + header + struct.pack(">I", zlib.crc32(header)) + encoded[33:]


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        pytest.param(b"", "empty file", id="empty"),
        pytest.param(b"the quick brown fox\n" * 9, "not an image", id="text"),
        pytest.param(bytes(4096), "not an image", id="zeros"),
        pytest.param(b"\0\0\0\x18ftypheic\0\0\0\0", "its kind is heic", id="heic"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image", id="ps"),
        pytest.param(encode(NOISE, "JPEG")[:-200], "truncated", id="half a jpeg"),
        pytest.param(encode(NOISE, "JPEG")[:-2], "truncated", id="jpeg without its end"),
        pytest.param(encode(NOISE, "TIFF")[:300], "broken", id="half a tiff"),
        pytest.param(encode(NOISE, "BMP")[:-100], "truncated", id="half a bmp"),
        pytest.param(encode(NOISE, "GIF")[:-100], "truncated", id="half a gif"),
        pytest.param(encode(NOISE)[:400], "broken", id="half a png"),
        pytest.param(_with_flipped_checksum(b"IHDR"), "not an image", id="checksum of header"),
        pytest.param(_with_flipped_checksum(b"IDAT"), "IDAT", id="checksum of pixels"),
        pytest.param(
            _png_that_claims(10_000, 10_000), "more pixels than are safe", id="bomb warning"
        ),
        pytest.param(
            _png_that_claims(60_000, 60_000), "more pixels than are safe", id="bomb error"
        ),
    ],
)
def test_a_broken_file_is_a_reason_in_one_line(encoded, reason):
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(encoded)
    assert "\n" not in str(caught.value)


def test_bytes_cut_or_flipped_anywhere_raise_nothing_else():
    random = np.random.default_rng(1)
    for form in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "TGA", "PPM"):
        if form == "WEBP" and not features.check("webp"):
            continue
        whole = encode(NOISE, form)
        for _ in range(40):
            damaged = bytearray(whole[: random.integers(1, len(whole) + 1)])
            damaged[random.integers(len(damaged))] ^= int(random.integers(1, 256))
            with contextlib.suppress(UnreadableImage):
                assert decode(bytes(damaged)).mode == "RGB"


def test_common_endings_are_read_and_documents_are_not():
    assert {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".ppm"} <= SUFFIXES
    assert not {".pdf", ".eps", ".ps", ".txt", ".mp4", ".h5", ""} & SUFFIXES
