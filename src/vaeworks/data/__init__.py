"""Images in: which of them, which crops, in which order."""

from .crops import Crops, CropSource
from .image_set import ImageSet, is_held_out, scan
from .loading import batches
from .order import latent_noise, noise_levels, random_seed
from .place import ImageFile
from .procedural import procedural
from .samples import photos
from .sources import is_stream
from .stream import ImageStream, first_images, open_stream
from .streamed_crops import StreamedCrops, training_crops

__all__ = [
    "CropSource", "Crops", "ImageFile", "ImageSet", "ImageStream", "StreamedCrops", "batches", "first_images",
    "is_held_out", "is_stream", "latent_noise", "noise_levels", "open_stream", "photos", "procedural", "random_seed", "scan",
    "training_crops",
]  # fmt: skip
