"""The tensors of a model file of any container: known at once, read when asked for, and nothing in the file
executed."""

from .archive import Archive, joined, open_archive, open_shards
from .entries import Entry

__all__ = ["Archive", "Entry", "joined", "open_archive", "open_shards"]
