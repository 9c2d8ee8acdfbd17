"""Gradients of encoder and decoder in strips of rows: equal to the whole picture's, in a fraction of the memory."""

from .halves import decode_with_gradient, encode_with_gradient

__all__ = ["decode_with_gradient", "encode_with_gradient"]
