"""Where a round of fedai's goes, as far as its database and its sites' logs tell.

A round is as long as its last answer takes. Of that site: `out` from the round before to the task in hand
(the server's push, the site's question, the pull), `computing` as the site's log says, `back` from there to
the answer checked at the server (packing, egress, ledger, push, the server's question, pull), `close` to the
end of the round (mean, checkpoint, database). Together they are the round.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from benchmarks.federation import Federation
from benchmarks.round_overhead.figures import spread
from fedai.errors import FederationError

LINE = re.compile(r"^(\S+ \S+) INFO \S+ (\S+): (?:train round (\d+)$|train-(\d+)-\S* took )", re.MULTILINE)
Fact = tuple[datetime, str, dict[str, Any]]


@dataclass(frozen=True)
class Rest:
    """Seconds of a round's parts, of the site whose answer was the last."""

    out: float
    computing: float
    back: float
    close: float


@dataclass(frozen=True)
class Work:
    """When, in Unix time, a site had a task in hand and had done it."""

    begun: float
    done: float


def rest_of(federation: Federation) -> list[Rest]:
    """The rounds of the run that ended last."""
    with_run = (federation.server / "registry").iterdir()
    run = max(with_run, key=lambda folder: folder.stat().st_mtime).name
    logs = {site: federation.home(site) / "site.log" for site in federation.sites}
    works = {site: works_in(log.read_text(encoding="utf-8"), run) for site, log in logs.items()}
    return list(rests(federation.facts(run), works))


def works_in(log: str, run: str) -> dict[int, Work]:
    """A site's rounds of a run, by number."""
    begun: dict[int, float] = {}
    found: dict[int, Work] = {}
    for at, name, begins, ends in LINE.findall(log):
        when = datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp()
        if name == run and begins:
            begun[int(begins)] = when
        elif name == run:
            found[int(ends)] = Work(begun[int(ends)], when)
    return found


def rests(facts: Sequence[Fact], works: Mapping[str, Mapping[int, Work]]) -> Iterator[Rest]:
    """Each closed round in parts. Raises FederationError where a round has no answer in the database."""
    start = max(at.timestamp() for at, kind, _ in facts if kind == "site_ready")
    heads = [(at.timestamp(), fact["site"]) for at, kind, fact in facts if kind == "ledger_head"]
    for at, fact in [(at.timestamp(), fact) for at, kind, fact in facts if kind == "round_closed"]:
        came = [(when, site) for when, site in heads if start < when <= at]
        if not came:
            raise FederationError(f"round {fact['number']}: no answer is in the database")
        last, site = max(came)
        work = works[site][fact["number"]]
        yield Rest(work.begun - start, work.done - work.begun, last - work.done, at - last)
        start = at


def rest_table(found: Sequence[Rest]) -> list[str]:
    """A line with the median of each part."""
    parts = [(each.name, spread([getattr(one, each.name) for one in found])) for each in fields(Rest)]
    told = ", ".join(
        f"{name} {values.median:.2f} ({values.lower:.2f} to {values.upper:.2f})" for name, values in parts
    )
    return [f"fedai's rounds in parts: {told}"]
