"""Which images the model in a file was trained on."""

from __future__ import annotations

from ..data.trained_on import TrainedOn, trained_on
from .locate import Located
from .sources import RUN_BEST, RUN_MODEL


def trained_on_of(located: Located) -> TrainedOn | None:
    """What a located model was trained on: by its metadata, else by the run folder that it lies in; None if unknown.

    Errors: FormatError for metadata, or a run's data.json, that cannot be read.
    """
    found = TrainedOn.from_metadata(located.archive.metadata, str(located.path))
    if found is None and located.archive.path.name in (RUN_MODEL, RUN_BEST):
        return trained_on(located.archive.path.parent)
    return found


def trained_on_metadata(located: Located) -> dict[str, str]:
    """The metadata of a file that is made from a located model; {} if nothing is known."""
    found = trained_on_of(located)
    return {} if found is None else found.to_metadata()
