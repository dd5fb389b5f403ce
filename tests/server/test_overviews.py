"""Runs that ask sites what they have, and train nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fedai_server.cli.run import _overview_lines
from fedai_server.launch import OVERVIEW
from fedai_site.client_app import Bench
from fedai_site.home import SiteHome
from hospitals import SITES, at, make_hospitals, run_of
from replies_to import task_of
from studies import small_study

from fedai import wire
from fedai.errors import RefusedByPolicy
from fedai.overview import EDGES

pytestmark = pytest.mark.usefixtures("quick")
STUDY = small_study(overview=True, rounds={"grace_s": 2, "deadline_s": 30, "waiting_s": 30})


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteHome]:
    return make_hospitals(tmp_path_factory.mktemp("hospitals"))


def test_a_run_for_an_overview_tells_of_each_sites_images_and_trains_nothing(
    hospitals: dict[str, SiteHome], tmp_path: Path
) -> None:
    grid = at(hospitals, STUDY)
    runs, registry, go = run_of(tmp_path, grid, STUDY)
    (run,) = runs.all()
    runs.add(run.name, OVERVIEW, {})
    go()
    record = json.loads((registry / "record.json").read_text())
    assert (record["state"], record["reason"]) == ("finished", "an overview: nothing was trained")
    assert record["rounds"] == []
    for site in SITES:
        cohort = record["cohorts"][site]
        told = sum(facts["cases"] for facts in cohort["splits"].values())
        assert set(cohort["overview"]) == set(EDGES)
        for name in ("longer_side_px", "intensity"):
            assert sum(one["images"] for one in cohort["overview"][name]) == told
    lines = _overview_lines(record)
    assert any(line.startswith("longer_side_px") and SITES[0] in line for line in lines)
    assert not _overview_lines({"cohorts": {"north": {}}})


def test_the_wire_refuses_an_overview_of_few_images_and_one_that_nobody_asked_for(
    hospitals: dict[str, SiteHome],
) -> None:
    bench = Bench(hospitals[SITES[0]], STUDY, lambda: True)
    task = task_of("ready", study=STUDY.sha256)
    reply = bench.answer(task, 1)
    wire.check(reply, task, STUDY, bench.layout)
    few = reply.arrays["overview_images"].copy()
    few[3, few[3].argmax()] = 2
    forged = replace(reply, arrays={**reply.arrays, "overview_images": few})
    with pytest.raises(RefusedByPolicy, match="a bin of intensity is of fewer than 3 images"):
        wire.check(forged, task, STUDY, bench.layout)
    plain = small_study(rounds=STUDY.rounds.model_dump())
    with pytest.raises(RefusedByPolicy, match="too many"):
        wire.check(
            replace(reply, study=plain.sha256),
            task_of("ready", study=plain.sha256),
            plain,
            bench.layout,
        )
