"""How large a picture will be computed: strips of how many rows, and which maps are kept, so that a memory budget
holds.

A schedule is tried on tensors without values, which shows exactly what it would hold and compute. Of those that fit,
the one with the least work is taken.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..models import Autoencoder
from ..nn.winograd import WORKSPACE
from .conv_kernels import Kernels, Prepared, prepared_bytes
from .lazy_maps import Shape
from .memory import as_gib
from .strips import Ledger, Striped

ROWS = 64, 32, 16, 8
"""Rows of a strip that are tried, longest first: shorter ones take less memory and compute more rows twice."""

TEMPORARIES = 5
"""Strips of the widest map that live at the same time while one is computed: input, normalized, frame, output and sum,
in float32 (an estimate; benchmarks/decode_memory.py measures what is really taken)."""

BUFFERS = 4
"""Buffers of minimal filtering: windows, tiles, products, and what is between them."""

RESERVE = 2**25
"""Bytes for what libraries take for themselves, and what the allocator does not give back."""

WIDE = 64
"""Channels from which on a convolution on a CPU gains by strips; narrower ones are made of too many small operations
(docs/log.md)."""

Run = Callable[[Autoencoder, Tensor, Striped], Tensor]
"""Computes something with a network without values, in strips."""


@dataclass(frozen=True)
class StripPlan:
    """How a picture will be computed."""

    rows: int
    """of a strip, at most"""
    keep: bool
    """whether prepared weights of convolutions stay, for the next picture"""
    peak: int
    """bytes of maps, temporaries and prepared weights that it will take, about; weights and libraries are not
    counted"""
    recomputed: tuple[str, ...]
    """maps that are computed again each time they are needed, for want of room"""
    maps: int
    """bytes that maps may take"""
    budget: float
    """bytes that it was made for"""
    work: int
    """multiplications of the 3x3 convolutions, as the plain ones would need them"""
    wide: float
    """share of them in convolutions that are wide enough for strips to be faster than the network as it is"""
    whole: bool = False
    """whether it is not computed in strips at all"""

    @property
    def sentence(self) -> str:
        """The plan in plain words."""
        if self.whole:
            return f"whole, about {as_gib(self.peak)} at most"
        again = f", computing {len(self.recomputed)} maps more than once" if self.recomputed else ""
        return f"in strips of {self.rows} rows, about {as_gib(self.peak)} at most{again}"

    def strips(self, groups: int, kernels: Kernels, offload: bool = False) -> Striped:
        """What runs it; kernels: those that are kept; offload: as it was planned."""
        return Striped(groups, self.rows, Ledger(self.maps), kernels if self.keep else Kernels(), offload)


class Counting(Kernels):
    """Convolutions that compute nothing, and count what they would."""

    def __init__(self) -> None:
        super().__init__()
        self.work = self.wide = 0
        self.kept_bytes: dict[tuple[nn.Conv2d, bool], int] = {}

    def _of(self, conv: nn.Conv2d, doubled: bool) -> Prepared:
        self.kept_bytes[conv, doubled] = prepared_bytes(conv, doubled)
        return _Counted(self, conv, 2 if doubled else 1)


class _Counted(Prepared):
    def __init__(self, counting: Counting, conv: nn.Conv2d, gain: int):
        self.counting, self.conv, self.gain = counting, conv, gain

    def rows(self, x: Tensor, above: int, below: int) -> Tensor:
        n, _, h, w = x.shape
        shape = (n, self.conv.out_channels, self.gain * (h - above - below), self.gain * w)
        work = math.prod(shape) * 9 * self.conv.in_channels
        self.counting.work += work
        self.counting.wide += work if min(self.conv.in_channels, self.conv.out_channels) >= WIDE else 0
        return x.new_empty(shape)


def without_values(network: Autoencoder) -> Autoencoder:
    """A copy on the device "meta", for which no weight is copied."""
    parameters = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False) for p in network.parameters()
    }
    return copy.deepcopy(
        network, {**parameters, **{id(b): torch.empty_like(b, device="meta") for b in network.buffers()}}
    )


def planned(
    network: Autoencoder,
    run: Run,
    shape: Shape,
    row: int,
    groups: int,
    budget: float,
    what: str,
    tile: int | None = None,
    offload: bool = False,
) -> StripPlan:
    """The schedule with the least work whose memory is within the budget, in bytes.

    network: without values (on the device "meta"); run: computes with it from a tensor of this shape; row: numbers in a
    row of the widest map; groups: of group normalizations; what: for the error; tile: rows of a strip, instead of a
    choice; offload: maps are on the host.
    Errors: ConfigError for a budget below the least that works.
    """
    found: list[StripPlan] = []
    least = math.inf
    for plan in _plans(network, run, shape, row, groups, budget, (tile,) if tile else ROWS, offload):
        least = min(least, plan.peak)
        if plan.peak <= budget:
            found.append(plan)
            if not plan.recomputed:  # shorter strips can only take longer
                break
    if not found:
        raise ConfigError(
            f"{what} {shape[0]} x {shape[2]}x{shape[3]} takes at least {as_gib(least)} beside the weights, more than "
            f"memory (={as_gib(budget)}); give more, or take half precision, a smaller batch or a smaller picture"
        )
    return min(found, key=lambda plan: plan.work)


def whole_plan(
    network: Autoencoder, run: Run, shape: Shape, row: int, groups: int, budget: float, height: int
) -> StripPlan | None:
    """The whole picture at once, by the network itself, if that is within the budget; arguments are `planned`'s.

    About: it is counted as one strip, of the picture's height.
    """
    (plan,) = _plans(network, run, shape, row, groups, math.inf, (height,))
    return replace(plan, whole=True) if plan.peak <= budget else None


def _plans(
    network: Autoencoder,
    run: Run,
    shape: Shape,
    row: int,
    groups: int,
    budget: float,
    choices: tuple[int, ...],
    offload: bool = False,
) -> Iterator[StripPlan]:
    dtype = next(network.parameters()).dtype
    size = torch.promote_types(dtype, torch.float32).itemsize
    for rows in choices:
        passing = _passing(network)
        tiles = 9 * row  # numbers in a row of them
        buffer = min(max(WORKSPACE, tiles), tiles * math.ceil(rows / 4)) if passing else 0
        spare = TEMPORARIES * size * row * rows + BUFFERS * dtype.itemsize * buffer + RESERVE
        for keep in (True, False):
            counting = Counting()
            kernels = 0 if keep else passing
            ledger = Ledger(budget - spare - kernels)
            with torch.no_grad():
                run(
                    network,
                    torch.empty(shape, device="meta", dtype=dtype),
                    Striped(groups, rows, ledger, counting, offload),
                )
            held = sum(counting.kept_bytes.values()) if keep else kernels
            peak = ledger.peak + spare + held
            if keep and (ledger.recomputed or peak > budget):  # room is better used for maps
                continue
            maps, wide = int(min(budget - spare - held, 2**62)), counting.wide / max(1, counting.work)
            yield StripPlan(rows, keep, peak, tuple(ledger.recomputed), maps, budget, counting.work, wide)
            break


def _passing(network: Autoencoder) -> int:
    """Bytes of weights that are prepared, used, and given back: three at a time where maps are computed from one
    another, and a copy."""
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    return 4 * max((prepared_bytes(conv, doubled=False) for conv in convs), default=0)
