"""Series that may show a face: their clean files wait in the private folder until the whole series is there.

Then the face is removed from the volume and all of them are given out, or all go to quarantine.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom

from fedai_site.deidentify.engine import Cleaned
from fedai_site.deidentify.evidence import Evidence, findings
from fedai_site.deidentify.objects import finish, instance_of
from fedai_site.deidentify.output import (
    Job,
    Outcome,
    clean_file,
    give_out,
    in_conflict,
    is_chosen,
    quarantined,
    settle,
    withdraw,
)
from fedai_site.deidentify.silence import silenced
from fedai_site.deidentify.state import DUPLICATE, HELD, Source, State
from fedai_site.quarantine import Quarantine, Reason


@dataclass(frozen=True)
class _Slice:
    """One waiting file: its source, its data set, and what was kept beside it."""

    source: Source
    dataset: pydicom.Dataset
    kept: dict[str, Any]

    @property
    def instance(self) -> str:
        return instance_of(self.dataset, self.source.input_sha256)


def release(job: Job, state: State, fingerprint: str) -> None:
    """Give out, or quarantine, every series that waits."""
    series: dict[str, list[Source]] = defaultdict(list)
    for source in state.in_state(HELD):
        series[Path(source.object).parent.name].append(source)
    for name, sources in sorted(series.items()):
        before, is_whole = _given_out_before(job, state, name, fingerprint)
        _release(job, state, name, sources + before, is_whole)


def _given_out_before(job: Job, state: State, series: str, fingerprint: str) -> tuple[list[Source], bool]:
    """The rest of a series that grew after it had been given out: taken back, to be done as a whole again.

    What is in the series but can't show a face stays given out. Also says whether all are there: without
    the original of an earlier slice nobody sees the whole volume.
    """
    again: list[Source] = []
    is_whole = True
    for written in state.in_series(series):
        redone = [
            clean_file(job, fingerprint, source.path).source for source in state.sources_of(written.path)
        ]
        held = [source for source in redone if source.state == HELD]
        for source in held:
            state.note(source)
        if held:
            withdraw(job, state, written.path)
        elif json.loads(written.evidence).get("face"):
            is_whole = False
        again += held
    return again, is_whole


def _release(job: Job, state: State, name: str, sources: list[Source], is_whole: bool) -> None:
    try:
        if not is_whole:
            raise Quarantine(Reason.FACE_LEFT, "originals of slices that were given out earlier are gone")
        outcomes = _cleaned(job, sources)
    except Quarantine as error:
        outcomes = [Outcome(replace(quarantined(job, source, error), object="")) for source in sources]
    for outcome in outcomes:
        settle(job, state, outcome)
    for path in sorted((job.private / "held" / name).glob("*")):
        path.unlink()
    (job.private / "held" / name).rmdir()


def _rank(job: Job, source: Source) -> tuple[bool, int, str]:
    came = -source.mtime_ns if job.newest else 0
    return not is_chosen(job, source.input_sha256), came, source.input_sha256


def _cleaned(job: Job, sources: list[Source]) -> list[Outcome]:
    from fedai_site.deidentify.faces import deface_series

    slices = [_read(job, source) for source in sorted(sources, key=partial(_rank, job))]
    if len({found.kept["patient"] for found in slices}) > 1:
        raise Quarantine(Reason.UID_REUSED, "a series of several patients")
    first: dict[str, _Slice] = {}
    for found in slices:
        first.setdefault(found.instance, found)
    face = findings(deface_series([found.dataset for found in first.values()]))
    outcomes = [_given_out(job, found, face) for found in first.values()]
    names = {found.instance: one.source.object for found, one in zip(first.values(), outcomes, strict=True)}
    rest = [found for found in slices if found is not first[found.instance]]
    return outcomes + [_left_over(job, found, first[found.instance], names[found.instance]) for found in rest]


def _left_over(job: Job, found: _Slice, first: _Slice, name: str) -> Outcome:
    """One more file of an object that another file stands for: a copy of it, or another content."""
    is_copy = found.kept["evidence"]["output_sha256"] == first.kept["evidence"]["output_sha256"]
    return Outcome(
        replace(found.source, state=DUPLICATE, object=name) if is_copy else in_conflict(job, found.source)
    )


def _read(job: Job, source: Source) -> _Slice:
    path = job.private / source.object
    try:
        kept = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with silenced():
            return _Slice(source, pydicom.dcmread(BytesIO(path.read_bytes())), kept)
    except OSError as error:
        raise Quarantine(Reason.UNREADABLE, error.strerror or "input/output error") from None


def _given_out(job: Job, found: _Slice, face: dict[str, Any] | None) -> Outcome:
    kept = found.kept
    evidence = Evidence(**{**kept["evidence"], "options": tuple(kept["evidence"]["options"]), "face": face})
    actions = Counter(evidence.actions)
    cleaned = Cleaned(found.dataset, kept["patient"], actions, evidence.key_id, evidence.profile)
    clean = finish(cleaned, evidence, held=False)
    return give_out(job, found.source, kept["name"], clean, kept["facts"])
