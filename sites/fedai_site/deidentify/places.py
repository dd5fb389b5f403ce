"""Where an attribute stands, and what a rule is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from fedai_site.deidentify.actions import Action, Decision
from fedai_site.deidentify.profile import Profile

PATIENT_ID = 0x00100020
TEXT = frozenset({"LO", "SH", "ST", "LT", "UC", "UT"})
DATES = frozenset({"DA", "DT", "TM"})
BINARY = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
NEEDED = {"1": Action.DUMMY, "1C": Action.DUMMY, "2": Action.EMPTY, "2C": Action.EMPTY}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attribute stands: its tag, the Standard's VR ('' if unknown), the VR that it is written with,
    its Type in the object's IOD ('' if the IOD doesn't have it here), and whether it is at the top.
    """

    tag: int
    vr: str
    written_vr: str
    type: str = ""
    is_top: bool = True
    is_directory: bool = False

    @property
    def hole(self) -> Action:
        """What keeps the object valid when the value has to go."""
        return NEEDED.get(self.type, Action.REMOVE)


class Rule(Protocol):
    """Decides about some attributes and leaves the others (None) to the rules after it."""

    @property
    def name(self) -> str: ...

    def decide(self, place: Place, profile: Profile) -> Decision | None: ...

    def describe(self, profile: Profile) -> Iterator[tuple[str, str]]:
        """(attributes, what happens to them), for people."""
        ...
