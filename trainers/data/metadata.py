"""What image files say beside their pixels: of all of it, only the orientation is used."""

import contextlib
import re
import zlib

from PIL import ExifTags, Image

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_ORIENTATION = ExifTags.Base.Orientation
_NOTES = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")


def keep_orientation(image: Image.Image) -> None:
    """Forget all metadata but an orientation that can be read, so that nothing trips over it."""
    turn = None
    with contextlib.suppress(Exception):  # its readers raise anything
        turn = image.getexif().get(_ORIENTATION)
    exif = image.getexif()  # what the call before could read
    for tag in list(exif):
        del exif[tag]
    if turn is not None:
        exif[_ORIENTATION] = turn
    for note in _NOTES:
        image.info.pop(note, None)


def without_metadata(encoded: bytes) -> bytes:
    """The bytes of the same image without what its pixels and orientation can do without.

    Equal to `encoded` when there is nothing to leave out, or no way known to do so.
    """
    if encoded.startswith(_PNG):
        return _bare_png(encoded)
    if encoded.startswith(_JPEG):
        return _bare_jpeg(encoded)
    # An AVIF lists its parts by kind; those of an unknown kind are passed over.
    return re.sub(rb"(infe.{8})Exif", rb"\1none", encoded, flags=re.DOTALL)


def _bare_png(encoded: bytes) -> bytes:
    kept, place = [_PNG], len(_PNG)
    while place < len(encoded):
        length = int.from_bytes(encoded[place : place + 4], "big")
        chunk = encoded[place : place + length + 12]
        kind = chunk[4:8]
        is_whole = chunk[-4:] == zlib.crc32(chunk[4:-4]).to_bytes(4, "big")
        if kind[:1].isupper() or kind == b"tRNS" or (kind == b"eXIf" and is_whole):
            kept.append(chunk)
        place += len(chunk)
    return b"".join(kept)


def _bare_jpeg(encoded: bytes) -> bytes:
    """Left out are comments and applications' segments, but for what tells colours and EXIF."""
    kept, place = [_JPEG], len(_JPEG)
    while encoded[place : place + 1] == b"\xff" and encoded[place + 1 : place + 2] != b"\xda":
        length = int.from_bytes(encoded[place + 2 : place + 4], "big")
        segment = encoded[place : place + length + 2]
        kind = segment[1:2]
        is_note = kind == b"\xfe" or b"\xe0" <= kind <= b"\xef"
        is_used = kind in (b"\xe0", b"\xee") or segment[4:10] == b"Exif\0\0"
        if not is_note or (is_used and len(segment) >= 16):
            kept.append(segment)
        place += length + 2
    return b"".join([*kept, encoded[place:]])
