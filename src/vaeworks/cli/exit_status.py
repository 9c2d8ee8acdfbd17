"""How a command ends that has done its work, but not simply well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class FailOnTriggered(Exception):  # noqa: N818 - it is no error
    """The result is there, and breaks a rule of --fail-on: it is printed, the sentences are told, and the exit code is
    1."""

    exit_code = 1

    def __init__(self, result: Any, sentences: Sequence[str]):
        super().__init__("; ".join(sentences))
        self.result, self.sentences = result, tuple(sentences)


class SomeInputsFailed(FailOnTriggered):
    """The result is there for some of the inputs: it is printed, the errors of the others are told, and the exit code
    is 2."""

    exit_code = 2
