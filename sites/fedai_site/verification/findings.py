"""What the second reader found: each finding with its place, never with the value that was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How bad a finding is. The first two mean that the folder may not be released."""

    LEAK = "leak"  # an identifier, or what can't be told from one
    VIOLATION = "violation"  # against the profile that the object claims, or not verifiable
    LOOK = "look"  # a person should look at it
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `file` is a path inside the folder ('' for the folder itself), `place` a tag path such as
    '(0040,A730)[0](0040,A160)' or a region of the file; `column` is the column of the known list.
    """

    severity: Severity
    check: str
    message: str
    file: str = ""
    place: str = ""
    column: str = ""


@dataclass(frozen=True)
class Picture:
    """A sample picture for the reviewer's eyes: path of the object, frame number, PNG bytes."""

    file: str
    frame: int
    png: bytes


@dataclass(frozen=True)
class Findings:
    """Everything that one reading of a folder gave. `counts` has plain numbers by name, such as 'objects'."""

    folder: str
    counts: Mapping[str, int]
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    pictures: tuple[Picture, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that forbids the release."""
        return not any(f.severity in (Severity.LEAK, Severity.VIOLATION) for f in self.findings)

    def by_severity(self) -> Counter[str]:
        """Number of findings of each severity."""
        return Counter(str(f.severity) for f in self.findings)

    def of(self, *checks: str) -> tuple[Finding, ...]:
        """The findings of some checks."""
        return tuple(f for f in self.findings if f.check in checks)

    def as_json(self) -> dict[str, Any]:
        """As plain data, without the pictures."""
        return {
            "folder": self.folder,
            "ok": self.ok,
            "by_severity": dict(self.by_severity()),
            "counts": dict(self.counts),
            "checks": list(self.checks),
            "facts": dict(self.facts),
            "findings": [asdict(f) for f in self.findings],
            "pictures": [{"file": p.file, "frame": p.frame} for p in self.pictures],
        }


ORDER = {severity: number for number, severity in enumerate(Severity)}


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without repetitions, the worst first, then by check, file and place: the same whatever came first."""
    return tuple(
        sorted(
            set(findings), key=lambda f: (ORDER[f.severity], f.check, f.file, f.place, f.column, f.message)
        )
    )
