"""Training and test data: sources of images, crops, their order, labels and masks."""

from .bundled_photos import photos
from .captions import Captions, find_captions
from .crops import Crops, CropSource
from .image_ref import ImageFile
from .image_set import ImageSet, is_held_out, scan
from .loader import batches
from .sources.dispatch import is_stream
from .sources.stream import ImageStream, first_images, open_stream
from .streamed_crops import StreamedCrops, training_crops
from .synthetic.captioned_shapes import captioned_shapes
from .synthetic.procedural import procedural

__all__ = [
    "Captions",
    "CropSource",
    "Crops",
    "ImageFile",
    "ImageSet",
    "ImageStream",
    "StreamedCrops",
    "batches",
    "captioned_shapes",
    "find_captions",
    "first_images",
    "is_held_out",
    "is_stream",
    "open_stream",
    "photos",
    "procedural",
    "scan",
    "training_crops",
]
