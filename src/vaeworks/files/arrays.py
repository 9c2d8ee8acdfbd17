"""NumPy files of one array, read as numbers and never as pickles, which `numpy.load` would allow."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ..errors import FormatError
from .links import missing


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """The array of a .npy file. mapped: its values are read when they are used.

    Errors: FormatError for a file that is missing, torn, or holds anything but numbers.
    """
    if not path.is_file():
        raise FormatError(f"{path} {missing(path)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of maps that cannot be written to
            found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except Exception as error:  # a header is a Python literal, and its tokenizer raises what it likes
        raise FormatError(
            f"{path} is not a whole array of numbers: {' '.join(str(error).split())[:150]}; delete it"
        ) from None
    if not isinstance(found, np.ndarray):
        raise FormatError(f"{path} is an archive of arrays, where one array belongs; delete it")
    return found
