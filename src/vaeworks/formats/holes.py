"""Holes in a file: weights that are zero as a whole, as a broken download leaves them. PyTorch is not needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..errors import FormatError
from .fingerprint import first_values
from .locate import Located

FRESH = (".conv2.weight", ".out.weight")
"""Last layers of residual branches: networks that were never trained may begin with zeros there, in a whole half."""

FIRST = 4096
"""Bytes that are looked at before the whole: nearly every weight has a value among them."""


def check_holes(located: Located) -> None:
    """Errors: FormatError for a file of which whole weights are zero."""
    if words := _said(located, {name: _is_zero(located, theirs) for name, theirs in located.names.items()}):
        raise FormatError(f"{located.path} {words}")


def likely_holes(located: Located) -> str:
    """A sentence without its subject on weights whose first values are zero; empty if there are none, or if they are
    those of a network that was never trained. The rest of them is not read."""
    return _said(
        located, {name: not values.any() for name, _, values in first_values(located)}, "begin with zeros only"
    )


def _said(located: Located, is_zero: Mapping[str, bool], what: str = "are zero as a whole") -> str:
    weights = [name for name in is_zero if name.endswith(".weight")]
    zero = [name for name in weights if is_zero[name]]
    if not zero or _is_fresh(zero, weights):
        return ""
    first = next((name for name in zero if "norm" in name), zero[0])
    return (
        f"has {len(zero)} of {len(weights)} weights that {what}, such as {located.names[first]!r}: a part of the file "
        "is missing; download it again"
    )


def _is_zero(located: Located, name: str) -> bool:
    parts = (np.frombuffer(chunk, np.uint8) for chunk in located.archive.chunks(name))
    return not any(part[:FIRST].any() or part.any() for part in parts)


def _is_fresh(zero: Iterable[str], weights: Iterable[str]) -> bool:
    """Whether these are the last layers of all residual branches of a half, and nothing else."""
    found = set(zero)
    for half in ("encoder.", "decoder."):
        last = {name for name in weights if name.startswith(half) and name.endswith(".conv2.weight")}
        ours = {name for name in found if name.startswith(half)}
        if ours and not (last <= ours and all(name.endswith(FRESH) for name in ours)):
            return False
    return all(name.startswith(("encoder.", "decoder.")) for name in found)
