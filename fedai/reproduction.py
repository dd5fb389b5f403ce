"""Is a run the one before once more, to the bit? By the checkpoints of both, and what each site said of its
data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedai.exports import models_of
from fedai.record import read_record

SAME, OTHER, MISSING = "same", "other", "missing"


@dataclass(frozen=True)
class Reproduction:
    """`models`: each model of the first run -> same, other or missing in the second. `reasons`: why they may
    differ.
    """

    first: str
    second: str
    models: dict[str, str]
    reasons: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether every model of the first run is there again, bit by bit."""
        return bool(self.models) and set(self.models.values()) == {SAME}


def compare_runs(first: Path, second: Path) -> Reproduction:
    """Hold the second run's folder against the first's. Raises ConfigError where a record can't be read."""
    found = {model.name: model.sha256 for model in models_of(second)}
    models = {
        model.name: MISSING
        if model.name not in found
        else SAME
        if found[model.name] == model.sha256
        else OTHER
        for model in models_of(first)
    }
    before, now = read_record(first), read_record(second)
    return Reproduction(before["run"], now["run"], models, tuple(_reasons(before, now)))


def _state(now: str | None, before: str) -> str:
    return MISSING if now is None else SAME if now == before else OTHER


def _reasons(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between the runs that the seeds don't fix."""
    found = ["the studies differ"] if before["study_hash"] != now["study_hash"] else []
    for site in before["study"]["sites"]:
        cohorts = [record["cohorts"].get(site, {}) for record in (before, now)]
        versions = [record["versions"].get(site, {}) for record in (before, now)]
        if not all(cohorts):
            found.append(f"{site} was not in both runs")
        elif cohorts[0].get("marks", {}).get("snapshot") != cohorts[1].get("marks", {}).get("snapshot"):
            found.append(f"{site} has other data now")
        found += [
            f"{site} has {name} {versions[1].get(name)} now, {version} then"
            for name, version in versions[0].items()
            if all(versions) and version != versions[1].get(name)
        ]
    if len(before["rounds"]) != len(now["rounds"]):
        found.append(f"{len(now['rounds'])} rounds now, {len(before['rounds'])} then")
    for fact, again in zip(before["rounds"], now["rounds"], strict=False):
        if fact["answered"] != again["answered"]:
            found.append(f"round {fact['number']} was of other sites ({', '.join(again['answered'])})")
    chosen = [record.get("chosen", {}).get("round") for record in (before, now)]
    if chosen[0] != chosen[1]:
        found.append(f"round {chosen[1]} was chosen now, round {chosen[0]} then")
    return found
