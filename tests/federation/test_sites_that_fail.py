"""Sites that are late, killed, gone wrong or without cases: the run goes on without them and says so."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import numpy as np
import pytest
from faulty_site import PAST, PLANTED
from fedai_server.launch import halt
from federation_processes import wait_for
from federation_sites import SITES, Federation

from fedai.aggregation import WeightedMean
from fedai.errors import FederationError
from fedai.weights import Entry, Layout, Weights

pytestmark = pytest.mark.federation


def test_a_site_that_is_late_is_left_out_of_the_round_and_named(
    whole_run: object, federation: Federation
) -> None:
    study = federation.study("late", grace_s=4)
    run = federation.start_run(study)
    south = federation.sites["south"]
    wait_for(lambda: federation.has_told(run, "site_ready", site="south"), 90, "south ready")
    south.signal(signal.SIGSTOP)
    try:
        wait_for(
            lambda: federation.has_told(run, "round_closed", number=1), 120, f"a round\n{federation.told()}"
        )
    finally:
        south.signal(signal.SIGCONT)
        halt(federation.home, run)
    (closed,) = federation.runs.record(run)["rounds"]
    assert closed["answered"] == ["east", "north"]
    assert closed["late"] == ["south"]
    assert set(closed["cases"]) == {"east", "north"}


@pytest.mark.slow
def test_a_site_and_then_the_superlink_are_killed_mid_training_and_the_run_completes(
    whole_run: dict[str, Any], federation: Federation
) -> None:
    study = federation.study("rough", rounds=2, epochs=150, quorum=3, deadline_s=240)
    run = federation.start_run(study)
    north = federation.sites["north"]
    wait_for(lambda: north.said(f"{run}: train round 1") == 1, 120, "north at work")
    north.signal(signal.SIGKILL)
    north.stop()
    north.start()  # within its limit: a key that still counts as present would be refused for a minute
    assert north.said("refuses this site") == 0
    wait_for(lambda: federation.has_told(run, "round_closed", number=1), 200, f"round 1\n{federation.told()}")
    wait_for(lambda: north.said(f"{run}: train round 2") == 1, 60, "north at work again")
    before = federation.server.pid("superlink")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: federation.server.pid("superlink") not in (0, before), 60, "a new SuperLink")
    record = federation.wait_for_run(run, 240)
    assert record["state"] == "finished", record["reason"]
    training = {site: whole_run["cohorts"][site]["splits"]["train"]["cases"] for site in SITES}
    for closed in record["rounds"]:
        assert closed["answered"] == sorted(SITES)
        assert closed["cases"] == training  # each answer counts once
    assert north.said(f"{run}: train round 1") == 2  # begun, killed, and begun again


@pytest.mark.parametrize("fault", [*PAST, "past: NaN"])
def test_what_a_site_sends_past_its_egress_is_refused_by_the_server_and_named(
    misbehaving: dict[str, dict[str, Any]], fault: str
) -> None:
    closed = misbehaving[fault]
    assert closed["answered"] == ["north"]
    assert set(closed["refused"]) == {"west"}
    assert not closed["late"]
    assert re.match(r"REFUSED |FEDERATION |UNSEALED$", closed["refused"]["west"])
    assert PLANTED not in str(closed)


@pytest.mark.slow
def test_a_site_that_dies_half_way_through_sending_keeps_nobody_waiting(
    misbehaving: object, federation: Federation
) -> None:
    """Flower waits up to three minutes for the rest of such an answer; the round must not."""
    west, plan = federation.sites["west"], federation.folder / "faults.json"
    plan.write_text(json.dumps({1: "dies half-way through sending"}))
    study = federation.study("half", sites=("north", "west"), rounds=30, quorum=1, grace_s=10)
    run = federation.start_run(study)
    assert west.process is not None
    assert west.process.wait(180) == 9
    wait_for(lambda: federation.has_told(run, "round_closed", number=1), 60, f"round 1\n{federation.told()}")
    plan.write_text("{}")
    west.start()
    both = {"answered": ["north", "west"]}
    wait_for(lambda: federation.has_told(run, "round_closed", **both), 180, f"west back\n{federation.told()}")
    halt(federation.home, run)
    first = federation.runs.record(run)["rounds"][0]
    assert (first["answered"], first["late"]) == (["north"], ["west"])


def test_nan_is_named_as_such(misbehaving: dict[str, dict[str, Any]]) -> None:
    assert "NaN" in misbehaving["past: NaN"]["refused"]["west"]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_nan_that_got_past_the_wire_too_is_not_averaged(odd: float) -> None:
    layout = Layout((Entry("w", (2,), "float32"),), (), ())
    none, count = np.zeros(0, np.float32), np.zeros(0, np.int64)
    mean = WeightedMean(layout)
    mean.add("north", Weights(np.ones(2, np.float32), none, count), 3)
    with pytest.raises(FederationError, match="NaN"):
        mean.add("west", Weights(np.array([1, odd], np.float32), none, count), 3)
    assert mean.update().parameters.tolist() == [1, 1]
    assert mean.sites == ["north"]


def test_a_study_without_an_eligible_case_ends_with_each_site_named(federation: Federation) -> None:
    record = federation.run(federation.study("nobody", modality=("MR",)))
    assert record["state"] == "failed"
    assert "0 of 2 sites needed were ready" in record["reason"]
    assert set(record["refused"]) == set(SITES)
    assert all(re.fullmatch(r"DATA [0-9a-f]{12}", code) for code in record["refused"].values())
    assert "no case of this site is eligible" in federation.sites["north"].home.log.read_text()
