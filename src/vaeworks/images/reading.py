"""Image files as Pillow images: upright, in eight bits, in a known mode; and nothing else is ever decoded."""

from __future__ import annotations

import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError
from .profiles import to_srgb

ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "QOI": (".qoi",),
    "PSD": (".psd",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "DDS": (".dds",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
}
"""Pillow's names of what is decoded, whatever a file is called, with its endings. (A telephone's MPO is a JPEG here.)

Pillow would try 30 others: it hands PostScript to Ghostscript, which is a program that a file may write, and the rest
are icons, films, measurements, and formats of vanished programs. TGA is last, because it has no signature."""

FORMATS = tuple(ENDINGS)

SUFFIXES = tuple(ending for endings in ENDINGS.values() for ending in endings)
"""File name endings that count as images."""

UNREAD = dict.fromkeys((".heic", ".heif", ".hif"), "HEIC, which Pillow does not read; save it as JPEG or PNG") | {
    ending: f"{kind}, which is not read; save it as PNG"
    for kind, endings in {
        "JPEG XL": (".jxl",),
        "an SVG drawing": (".svg", ".svgz"),
        "PostScript": (".eps", ".ps", ".ai"),
        "OpenEXR": (".exr",),
        "Radiance": (".hdr",),
        "a camera's raw picture": (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"),
        "a large PSD": (".psb",),
        "GIMP's own format": (".xcf",),
        "an icon": (".ico", ".icns", ".cur"),
        "FITS": (".fits", ".fit"),
        "a Windows metafile": (".wmf", ".emf"),
        "a texture of a game": (".blp", ".ftc", ".ftu"),
        "an animation of Autodesk": (".fli", ".flc"),
        "a Photo CD": (".pcd",),
        "a brush": (".gbr",),
        "an old bitmap": (".dcx", ".im", ".msp", ".pxr", ".ras", ".xbm", ".xpm"),
    }.items()
    for ending in endings
}
"""File name endings of pictures that are not read, with the reason."""


OTHERS = {
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"\0\0\1\0": "ICO",
    b"icns": "ICNS",
    b"SIMPLE": "FITS",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"%PDF": "PDF",
}
"""Beginnings of files that other programs call images."""

HEIC = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
"""Brands of HEIC, behind the eighth byte."""


LARGEST_FILE = 2**29
"""Bytes of an encoded image: 89 million pixels of 16 bits in three colours, as they are."""


MEMORY = 15 * 2**26
"""Bytes that an image may take while it is read, its file included."""


LARGE = 2**24
"""Pixels of an image beside which no other such is decoded."""


PAIR = "vaeworks-pair"
"""Note in a PNG that is a picture of two channels: its red and green are they, and its blue is red again."""


def open_image(source: str | Path | bytes, channels: int = 3) -> Image.Image:
    """A file's image, upright, in mode RGB (L where `channels` is 1, La where it is 2).

    EXIF orientation is applied; ICC profiles are converted to sRGB; 16-bit gray is scaled to 8 bits; palettes and CMYK
    are converted; what is transparent becomes white. Animations give their first frame. La is two planes that Pillow
    leaves alone; those of LA it would weigh by each other when it resizes.
    Errors: DataError, with the reason in a few words, for what cannot be read whole.
    """
    with image_file(source) as file:
        return _decoded(file, channels)


def _decoded(file: Image.Image, channels: int) -> Image.Image:
    """The image of a file that is open, as `open_image` returns it."""
    with _turn(file):
        file.load()
        if channels in _OTHER_CHANNELS and (PAIR in file.info) != (channels == 2):
            raise DataError(_OTHER_CHANNELS[channels])
        if channels == 2:
            return Image.merge("La", file.convert("RGB").split()[:2])
        return converted(file, channels)


def converted(image: Image.Image, channels: int) -> Image.Image:
    """A Pillow image of any mode, upright and in sRGB, in mode RGB, or L where `channels` is 1.

    Errors: DataError for pixels of an unknown range.
    """
    return _convert(to_srgb(_upright(image)), "L" if channels == 1 else "RGB")


def image_facts(content: bytes, decode: bool = True) -> tuple[int, int, bool, bytes]:
    """Width and height of an encoded image in pixels, whether its header promises transparency, and what it looks like:
    16 x 16 gray levels, each the mean of its part of the image.

    decode: read every pixel, so that broken ones are found; the sides are then those after EXIF orientation. False
    reads the header alone, and the look is empty.
    Errors: DataError, with the reason in a few words.
    """
    with image_file(content) as file:
        alpha = _promises_alpha(file)
        if not decode:
            return *file.size, alpha, b""
        image = _decoded(file, 3)
        look = image.resize((16, 16), Image.Resampling.BOX, reducing_gap=1.0).convert("L").tobytes()
        return *image.size, alpha, look


def image_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels that an encoded image claims to have, before EXIF orientation: only its header is
    read.

    Errors: DataError, with the reason in a few words, for what is no image.
    """
    with image_file(content) as file:
        return file.size


def mask_image(content: bytes) -> Image.Image:
    """An encoded mask in mode L, as it is stored. Errors: DataError, with the reason in a few words."""
    with image_file(content) as file, _turn(file):
        return file.convert("L")


_OTHER_CHANNELS = {
    1: "a picture of two channels, and this model's images have one; take sound:SRC",
    2: "no picture of two channels, as this model wants it; take stereo:SRC",
}


@contextmanager
def image_file(source: str | Path | bytes) -> Iterator[Image.Image]:
    """A file's or its content's image as Pillow opens it: its header read, its pixels when they are asked for.

    The only place where Pillow opens anything, so that nothing but FORMATS is decoded.
    Errors: DataError, with the reason in a few words, for what cannot be read, by whoever reads pixels within the block
    as well.
    """
    try:
        content = source if isinstance(source, bytes) else file_content(source)
        _check_lists(content)
        with quiet, Image.open(_Pieces(content), formats=FORMATS) as file:
            yield file
    except UnidentifiedImageError:
        kind = next((kind for magic, kind in OTHERS.items() if content.startswith(magic)), "")
        if content[4:8] == b"ftyp" and content[8:12] in HEIC:
            kind = "HEIC"
        raise DataError(f"{kind}, which is not read; save it as PNG" if kind else "not an image") from None
    except Image.DecompressionBombError:
        raise DataError("larger than Pillow's safety limit") from None
    except DataError:
        raise
    except OSError as error:
        raise DataError(error.strerror or " ".join(str(error).split())) from None
    except Exception as error:  # decoders raise whatever their C library reports
        raise DataError(" ".join(str(error).split()) or type(error).__name__) from None


def regular_file(path: str | Path) -> BinaryIO:
    """A file opened for reading, if it is one: whoever opens a pipe may wait for ever, and a device may have no end.

    Errors: OSError; DataError for a folder, a pipe, a socket or a device, also behind a link.
    """
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    if file is None:
        os.close(descriptor)
        raise DataError("no regular file")
    return file


def file_content(path: str | Path, most: int = LARGEST_FILE) -> bytes:
    """What a regular file of at most `most` bytes holds. Errors: OSError; DataError for any other file."""
    with regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > most else file.read(most + 1)
    if max(size, len(content)) > most:
        raise DataError(f"{size:,} bytes, more than the {most:,} that are read of one file")
    return content


PIECES = 2**21
"""Reads of a file: PNG and JPEG in pieces of 8 KiB come to 300,000 at 512 MiB. Each takes Pillow a microsecond and up
to 100 bytes."""


class _Pieces(io.BytesIO):
    """A file's content, of which no more than PIECES pieces are read: files of millions of empty chunks keep Pillow
    busy for minutes."""

    _left = PIECES

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise DataError(f"in more than {PIECES:,} pieces; save it again")
        return super().read(size)


LONGEST_LIST = 2**18
"""Values of one of a TIFF's lists: strips, tiles, colours."""


def _check_lists(content: bytes) -> None:
    """Errors: DataError for a TIFF with longer lists, each of whose values would become several hundred bytes."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or content[2:4] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
        return
    large = b"+" in content[2:4]
    number, entry = (order + "Q", order + "HHQQ") if large else (order + "H", order + "HHII")
    try:
        place = struct.unpack_from(order + ("Q" if large else "I"), content, 8 if large else 4)[0]
        count = struct.unpack_from(number, content, place)[0]
        place += struct.calcsize(number)
        for index in range(min(count, 2**16)):
            tag, kind, length = struct.unpack_from(entry, content, place + index * struct.calcsize(entry))[:3]
            if length > LONGEST_LIST and (kind not in _BYTES or tag in _PARTS):
                raise DataError(f"a TIFF whose tag {tag} has {length:,} values; save it again")
    except (struct.error, OverflowError):  # which Pillow will say
        return


_BYTES = (1, 2, 7)
"""Kinds of a TIFF's values that stay together: bytes, text, anything."""


_PARTS = (273, 279, 324, 325)
"""A TIFF's tags of places and sizes of strips and of tiles."""


_large = threading.Lock()


def _turn(file: Image.Image) -> AbstractContextManager[object]:
    """A wait for other large images where this is one.

    Errors: DataError for one that would take more memory than MEMORY, or more time than anybody's picture.
    """
    pixels = file.width * file.height
    scans = _content(file).count(START_OF_SCAN) if file.format in ("JPEG", "MPO") else 1
    if scans > SCANS and pixels * scans > WORK:
        raise DataError(f"a JPEG of {file.width}x{file.height} pixels in {scans:,} passes; save it again")
    needed = _bytes_on_the_way(file, scans)
    if needed > MEMORY:
        raise DataError(
            f"{file.width}x{file.height} pixels of {file.format}, {file.mode}, take {needed / 2**30:.1f} GiB; make it "
            "smaller"
        )
    return _large if pixels > LARGE else nullcontext()


def _content(file: Image.Image) -> bytes:
    return file.fp.getvalue()  # type: ignore[attr-defined]  # BytesIO gives what it was made of, without a copy


def _bytes_on_the_way(file: Image.Image, scans: int) -> int:
    """What decoders and conversions keep beside each other, at most."""
    pixels = file.width * file.height
    found = len(_content(file)) + pixels * (4 if _stays(file) else 4 + (1 if file.mode in ("1", "L", "P") else 4))
    if file.format == "WEBP":  # two canvases, and a copy
        found += 12 * pixels
    if scans > 1:  # all coefficients
        found += 6 * pixels
    if file.format == "TIFF":  # a strip or a tile
        tags = file.tag_v2  # type: ignore[attr-defined]
        rows, width, height = (int(tags.get(tag) or 0) for tag in (278, 322, 323))
        found += 6 * max(file.width * min(rows or file.height, file.height), width * height)
    return found


def _stays(file: Image.Image) -> bool:
    """Whether an image needs neither another mode of its size nor a turned copy."""
    try:
        plain = file.mode in ("RGB", "L") and not {"transparency", "icc_profile"} & file.info.keys()
        return plain and _orientation(file) == 1
    except Exception:  # as in `_upright`
        return False


START_OF_SCAN = b"\xff\xda"
"""What each of a JPEG's passes begins with, and nothing else that is coded."""


SCANS, WORK = 32, 2**30
"""Passes that no JPEG is refused for, and pixels times passes of one that has more: a pass may be a few bytes that
visit every pixel."""


class _Quiet:
    """A context without warnings: Pillow warns of odd metadata, but the pixels decide. For any number of threads at
    once, whose last one to leave restores the filters, which belong to the whole process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._saved.__exit__(None, None, None)


quiet = _Quiet()


if hasattr(
    os, "register_at_fork"
):  # a process that is forked while another thread is inside would wait for that thread for ever
    os.register_at_fork(after_in_child=quiet.__init__)  # type: ignore[misc]
    os.register_at_fork(after_in_child=lambda: globals().update(_large=threading.Lock()))


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it is stored where the EXIF data cannot be read."""
    try:
        return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)  # which copies in any case
    except Exception:  # a parser of other people's bytes fails in many ways
        return image


def _orientation(image: Image.Image) -> object:
    """EXIF's, 1 where there is none, or more than anybody's."""
    return image.getexif().get(ORIENTATION, 1) if len(image.info.get("exif", b"")) <= EXIF else 1


ORIENTATION = 0x112
"""EXIF's number of it."""


EXIF = 2**24
"""Bytes of EXIF data that are looked at."""


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Any Pillow mode as RGB or L of 8 bits."""
    if image.mode == "F":
        raise DataError("floating-point pixels, whose range is unknown")
    deep = image.mode.startswith("I")
    if deep or image.mode in TRANSPARENT or "transparency" in image.info:
        found = Image.new("L" if deep else "RGB", image.size)
        for top in range(
            0, image.height, rows := max(1, LARGE // 16 // image.width)
        ):  # in strips: it is several times as large on the way
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            found.paste(_eight_bits(strip) if deep else _on_white(strip), (0, top))
        image = found
    return image if image.mode == mode else image.convert(mode)


TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray in mode L; Pillow would clip it at 255."""
    values = np.asarray(image).astype(np.float64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"integer gray levels outside 0..65535 (up to {values.max():.0f})")
    return Image.fromarray(np.round(values / 257.0).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """What is transparent laid on white, in mode RGB."""
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def has_alpha(content: bytes) -> bool:
    """Whether an encoded image's header promises transparency."""
    try:
        with image_file(content) as file:
            return _promises_alpha(file)
    except DataError:  # it was read a moment ago; what a second look fails at decides nothing
        return False


def _promises_alpha(file: Image.Image) -> bool:
    return file.mode in TRANSPARENT or "transparency" in file.info
