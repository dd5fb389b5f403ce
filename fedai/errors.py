"""The whole error tree.

    FedaiError            exit  what it means                             may its text leave a site?
    ├── ConfigError          2  a file or an option is wrong              no
    ├── DataError            3  a patient file or a label is unusable     never
    ├── RefusedByPolicy      4  this site (or this server) said no        no
    ├── FederationError      5  the other side is away or misbehaves      no
    ├── OutOfTime            6  a deadline passed                         no
    └── TrainingError        1  numbers went wrong (NaN, empty cohort)    no

Anything else is a bug (exit 70). An interrupt by the user exits 130. Whatever its class, an error leaves a
site only as `code` and a reference into that site's own log, never with its text.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

BUG_EXIT_CODE = 70
INTERRUPTED_EXIT_CODE = 130


class FedaiError(Exception):
    """What happened (`message`), where (`where`), and what to do next (`hint`)."""

    exit_code: ClassVar[int] = BUG_EXIT_CODE
    code: ClassVar[str] = "BUG"

    def __init__(self, message: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.message}{advice}"


class ConfigError(FedaiError):
    """A study, site or server file, or a command-line option, is wrong."""

    exit_code = 2
    code = "CONFIG"


def check_there(path: Path, hint: str) -> None:
    """Raise ConfigError, with the next step, where there is no such file."""
    if not path.is_file():
        what = "this is a folder, not a file" if path.is_dir() else "there is no such file"
        raise ConfigError(what, where=str(path), hint=hint)


class DataError(FedaiError):
    """A patient file or a label can't be used, or there is no case. Its text names files and never leaves."""

    exit_code = 3
    code = "DATA"


class RefusedByPolicy(FedaiError):
    """The site said no: unknown bundle, unapproved study, a message that doesn't fit the wire.

    `reason` names the rule, such as EXPIRED; it stays at the site, in its ledger and its log.
    """

    exit_code = 4
    code = "REFUSED"

    def __init__(self, message: str, *, hint: str = "", where: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint, where=where)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}: {super().__str__()}" if self.reason else super().__str__()


class FederationError(FedaiError):
    """The other side is away, unknown, or sent something it should not have."""

    exit_code = 5
    code = "FEDERATION"


class OutOfTime(FedaiError):
    """A deadline passed before enough answers were in."""

    exit_code = 6
    code = "OUT_OF_TIME"


class TrainingError(FedaiError):
    """The numbers went wrong: not finite, no case to train on."""

    exit_code = 1
    code = "TRAINING"
