"""Pictures of some images beside the new images that are made of them, for the page.

They are no files: the folder of new images is a source of training images, in which every picture counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from ...data.image_ref import ImageRef, open_place
from ...data.subsets import some
from ...images import image_file, labelled, to_uint8
from .plan import Variant

SHOWN, MOST = 12, 7
"""Images that are shown, evenly chosen, and most variants of each."""


def examples(
    out: Path, variants: Sequence[Variant], places: Mapping[str, ImageRef], channels: int
) -> Iterator[tuple[str, Image.Image]]:
    """(what it shows, a sheet) for some of the images of a finished set."""
    by_source: dict[str, list[Variant]] = {}
    for variant in variants:
        by_source.setdefault(variant.sources[0], []).append(variant)
    sources = list(by_source)
    for row in some(len(sources), SHOWN):
        mine = by_source[sources[row]][:MOST]
        pictures, names = [to_uint8(open_place(places[sources[row]], channels))], [Path(sources[row]).name]
        for variant in mine:
            with image_file(out / variant.file) as picture:
                pictures.append(to_uint8(picture))
            names.append(Path(variant.file).name)
        yield f"{names[0]}: {label_words(mine)}", labelled([pictures], columns=names)


def label_words(variants: Sequence[Variant]) -> str:
    """The labels of variants: one class, or the mixtures of classes."""
    labels = [
        ", ".join(f"{share:.2f} {name}" if share < 1 else name for name, share in v.label.items()) for v in variants
    ]
    return "; ".join(dict.fromkeys(labels))
