"""A thousand inputs of all kinds; `make fuzz` tries twenty times as many."""

from __future__ import annotations

import pytest
from fuzzing import Target, all_targets, fuzz

TARGETS = all_targets()
INPUTS = 1000


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_has_a_wrong_answer(target: Target) -> None:
    """A result or one line, soon, in little memory, and nothing run or opened that is not the input's."""
    failures = list(fuzz(target, seed=0, count=-(-INPUTS // len(TARGETS))))
    assert not failures, "\n".join(map(str, failures[:10]))
