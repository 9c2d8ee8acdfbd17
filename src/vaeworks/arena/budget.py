"""Training budgets of the arena's generators, by name."""

from __future__ import annotations

from ..errors import ConfigError

BUDGETS = {"quick": 8_192, "laptop": 32_768, "gpu": 2_097_152}
"""Training images of each generator."""


def budget_images(budget: int | str) -> int:
    """Training images of a budget: a number, or a name. Errors: ConfigError for any other text."""
    if isinstance(budget, int):
        return budget
    if budget in BUDGETS:
        return BUDGETS[budget]
    try:
        return int(budget.replace(",", "").replace("_", ""))
    except ValueError:
        raise ConfigError(
            f"--budget {budget!r} is neither a number of images nor one of {', '.join(BUDGETS)}"
        ) from None
