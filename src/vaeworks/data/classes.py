"""Classes of images that a data set states, with the numbers that it gives them."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 1_000_000
"""Classes of a set whose names are numbers."""


class ClassName(str):
    """The name of a class, with the number that its data set gives it."""

    __slots__ = ("number",)
    number: int

    def __new__(cls, name: str, number: int) -> ClassName:
        found = super().__new__(cls, name)
        found.number = number
        return found


def numbered(labels: Sequence[str]) -> tuple[list[str], list[int]]:
    """The names of classes by number, and the number of each image's class.

    Numbers that the data set gives (`ClassName`), or that the names are ("7"), are kept, because models are conditioned
    on them; classes without images then have names as well. Otherwise classes are numbered in alphabetical order.
    """
    given = {label: _number(label) for label in set(labels)}
    known = {name: number for name, number in given.items() if number is not None}
    if len(known) == len(given) == len(set(known.values())) and max(known.values(), default=0) < MOST:
        names = {number: str(name) for name, number in known.items()}
        return [names.get(n, str(n)) for n in range(max(names, default=-1) + 1)], [known[label] for label in labels]
    classes = sorted(set(map(str, labels)))
    place = {name: number for number, name in enumerate(classes)}
    return classes, [place[str(label)] for label in labels]


def _number(label: str) -> int | None:
    if isinstance(label, ClassName):
        return label.number
    return int(label) if label.isdecimal() and label.isascii() and len(label) < 10 else None
