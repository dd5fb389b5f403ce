"""How far each run is, for who watches (`/metrics`, `/healthz`): from the run database and from the lock file
that a run's process touches at each turn of its round loop. Nothing is counted in memory, so that neither a
restart of the server nor one of a run's process loses a number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedai_server.continuation import last_beat
from fedai_server.runs import Run, RunDatabase

ASKED, ANSWER = "asked", "answer"
"""Facts of the run database: a question was opened; a site has answered it."""
CLOSED_BY = {"ready": "begun", "train": "round_closed", "score": "model_scored"}
NO_PROGRESS = (ASKED, "continued", "weights_sent", "without")  # what a run that gets nowhere writes as well


@dataclass
class Question:
    """What sites were asked last. `until`: Unix time at which it closes at the latest; `sites`: whom."""

    task: str
    round: int
    until: float
    sites: tuple[str, ...]
    answered: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    is_open: bool = True

    @property
    def awaited(self) -> tuple[str, ...]:
        """Who hasn't answered yet."""
        return tuple(site for site in self.sites if site not in self.answered | self.refused)


@dataclass
class Progress:
    """Of one run that isn't over. Times are Unix times in seconds, bytes those of arrays without framing.
    `last_round`: outcome -> sites, of the round that closed last.
    """

    run: Run
    rounds: int
    progress_at: float
    beat_at: float
    closed: int = 0
    question: Question | None = None
    last_round: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    received: int = 0

    def hear(self, at: float, kind: str, fact: dict[str, Any]) -> None:
        """One fact, in order."""
        if kind not in NO_PROGRESS:
            self.progress_at = at
        if kind == "continued":
            self.beat_at = max(self.beat_at, at)
        elif kind == ASKED:
            until = at + fact["deadline_s"]
            self.question = Question(fact["task"], fact["round"], until, tuple(fact["sites"]))
            self.sent += fact["bytes"]
        elif kind == ANSWER:
            self.received += fact["bytes"]
            if self.question is not None:
                (self.question.refused if fact["refused"] else self.question.answered).add(fact["site"])
        elif kind == "round_closed":
            self.closed = int(fact["number"])
            self.last_round = {one: len(fact[one]) for one in ("answered", "late", "refused")}
        if self.question is not None and CLOSED_BY.get(self.question.task) == kind:
            self.question.is_open = False


def progress_of(runs: RunDatabase, registry: Path) -> list[Progress]:
    """All runs that aren't over, the oldest first. `registry`: where runs' folders lie. Raises Unusable."""
    return [_progress_of(runs, run, registry / run.name) for run in runs.all(under_way=True)]


def _progress_of(runs: RunDatabase, run: Run, folder: Path) -> Progress:
    started = datetime.fromisoformat(run.started).timestamp()
    rounds = int(json.loads(run.study)["training"]["rounds"])
    found = Progress(run, rounds, started, max(started, last_beat(folder)))
    for at, kind, fact in runs.history(run.name):
        found.hear(at.timestamp(), kind, fact)
    return found


def now() -> float:
    """Unix time, as the run database's own."""
    return datetime.now(UTC).timestamp()
