"""A run's events as they happen, from the run database: whoever follows needs no other door to the server,
and may begin before, during or after the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from fedai.compare import compare
from fedai.events import Event, Listener, RunEnded, event_of, judged, outlines_judged
from fedai.outline_results import compare_outlines
from fedai.record import read_judgement, read_outlines
from fedai_server.runs import OVER, RunDatabase

LOOK_EVERY_S = 0.5


def follow(runs: RunDatabase, registry: Path, name: str) -> Iterator[Event]:
    """All events of a run from its first one on, until it is over. `registry`: where runs' folders lie.

    Raises ConfigError where there is no such run.
    """
    seen, run = 0, runs.get(name)
    while True:
        for number, event in news(runs, name, seen):
            seen = number
            if event is not None:
                yield event
        if run.state in OVER:
            break
        time.sleep(LOOK_EVERY_S)
        run = runs.get(name)  # before the facts: all that was told before it ended is there then
    if (registry / name / "judgement.json").is_file():
        yield _judged(name, registry / name)
    yield RunEnded(name, run.state, run.reason, run.seconds)


def _judged(name: str, folder: Path) -> Event:
    outlines = read_outlines(folder)
    if outlines is not None:
        return outlines_judged(name, compare_outlines(outlines))
    return judged(name, compare(read_judgement(folder)))


def tell(runs: RunDatabase, registry: Path, name: str, *listeners: Listener) -> int:
    """Tell the listeners of a run's events until it is over; gives how many there were."""
    heard = 0
    try:
        for heard, event in enumerate(follow(runs, registry, name), start=1):  # noqa: B007
            for listener in listeners:
                listener.hear(event)
    finally:
        for listener in listeners:
            listener.close()
    return heard


def news(runs: RunDatabase, name: str, seen: int) -> Iterator[tuple[int, Event | None]]:
    """(number, its event) of the facts after `seen`."""
    for number, kind, fact in runs.facts(name, after=seen):
        yield number, event_of(name, kind, fact)
