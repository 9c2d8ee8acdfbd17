"""The safetensors library's own reader, for files of any name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import safe_open


def open_tensors(path: str | Path, framework: str = "pt") -> Any:
    """What `safetensors.safe_open` returns: a context, and a reader of names, metadata and tensors.

    The library refuses names that are no UTF-8, which only Linux has; there, a descriptor has another name.
    Errors: OSError; SafetensorError for a file that is torn.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return safe_open(f"/proc/self/fd/{descriptor}", framework=framework)
        finally:  # the file is mapped by now
            os.close(descriptor)
    return safe_open(path, framework=framework)
