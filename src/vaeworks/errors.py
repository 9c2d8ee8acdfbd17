"""What can go wrong for a user. Every message is one line: the rule, the value, the remedy.

VaeworksError
├── ConfigError (ValueError)   a setting or an argument breaks a rule
├── FormatError (ValueError)   a model file is not what it should be
├── DataError (ValueError)     images cannot be used
├── TrainingError              a run had to stop; its last good checkpoint is kept
├── MissingExtraError (ImportError)   an optional package is not installed
└── NotFiniteError (ConfigError, DataError)   a network was given, or made, infinities or NaN
"""

from __future__ import annotations


class VaeworksError(Exception):
    """Base of all errors that a user can mend; the command line prints it as one line and exits with `exit_code`."""

    exit_code = 2


class ConfigError(VaeworksError, ValueError):
    """A setting or an argument breaks a rule."""


class FormatError(VaeworksError, ValueError):
    """A model file is unreadable, incomplete or of a kind that is not supported."""


class DataError(VaeworksError, ValueError):
    """Images are missing, broken or too small."""


class TrainingError(VaeworksError):
    """A training run had to stop; the message says why, what is kept and what to try."""


class MissingExtraError(VaeworksError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}: pip install 'vaeworks[{extra}]'")


class NotFiniteError(ConfigError, DataError):
    """Values that are no numbers: the setting (a precision) or the data (images, latents, weights) can be to blame.

    What holds them is not written: as a picture it would be black or white, and look like a result.
    """

    exit_code = 1
