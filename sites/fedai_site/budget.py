"""What was spent of an approval: runs, hours of work, bytes that left. On disk; a restart forgets nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedai.errors import RefusedByPolicy
from fedai_site.permit import Permit


@dataclass(frozen=True)
class Budget:
    """The account of one approval, `runs/spent/ID.json`; an approval without an id has none."""

    folder: Path
    allowed: Permit

    @property
    def _path(self) -> Path:
        return self.folder / "spent" / f"{self.allowed.id}.json"

    def spent(self) -> dict[str, Any]:
        """runs: Flower's run numbers; seconds; bytes."""
        none: dict[str, Any] = {"runs": [], "seconds": 0.0, "bytes": 0}
        return none | json.loads(self._path.read_text(encoding="ascii")) if self._path.exists() else none

    def claim(self, run_id: int) -> None:
        """Count the run. Raises RefusedByPolicy where it is one too many, or hours or bytes are spent."""
        spent, limits = self.spent(), self.allowed.limits
        runs = sorted({*spent["runs"], run_id})
        if limits.runs is not None and len(runs) > limits.runs:
            _refuse("RUNS_SPENT", f"{limits.runs} runs")
        if limits.hours is not None and spent["seconds"] >= limits.hours * 3600:
            _refuse("HOURS_SPENT", f"{limits.hours:g} hours of work")
        self.check_bytes(0)
        self._write({**spent, "runs": runs})

    def check_bytes(self, more: int) -> None:
        """Raise RefusedByPolicy where `more` bytes would be too many."""
        megabytes = self.allowed.limits.megabytes
        if megabytes is not None and self.spent()["bytes"] + max(more, 1) > megabytes * 1e6:
            _refuse("BYTES_SPENT", f"{megabytes:g} MB that may leave")

    def spend(self, *, seconds: float = 0.0, sent: int = 0) -> None:
        """Note work done, or bytes about to leave."""
        spent = self.spent()
        self._write({**spent, "seconds": spent["seconds"] + seconds, "bytes": spent["bytes"] + sent})

    def seconds_left(self) -> float:
        """Of the hours; without end where they aren't limited."""
        hours = self.allowed.limits.hours
        return float("inf") if hours is None else hours * 3600 - float(self.spent()["seconds"])

    def _write(self, spent: dict[str, Any]) -> None:
        if not self.allowed.id:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(spent), encoding="ascii")
        partial.replace(self._path)


def _refuse(reason: str, what: str) -> None:
    raise RefusedByPolicy(
        f"the {what} of this approval are spent",
        hint="see the ledger; to go on, revoke the study and approve it again",
        reason=reason,
    )
