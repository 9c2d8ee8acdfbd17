"""Images that a caller has in memory, as a data source."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable

from ..images import Pixels, each_image, has_alpha
from .image_ref import ImageFile, InMemoryImage


def images_in_memory(given: Iterable[Pixels]) -> tuple[ImageFile, ...]:
    """Images of Pillow images, arrays and tensors, each as a PNG named by its number.

    Errors: ConfigError for another type, range or shape.
    """
    found = []
    for number, image in enumerate(each_image(given)):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        content = buffer.getvalue()
        place = InMemoryImage(f"image {number}", content)
        found.append(ImageFile(place, hashlib.sha256(content).hexdigest(), *image.size, has_alpha(content)))
    return tuple(found)
