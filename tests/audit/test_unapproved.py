"""What a site didn't approve causes no read of case data: nothing in clean/ or cache/, nor the catalogue."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fedai_site import approvals, requests
from federation_sites import SITES, Federation
from hostile_app import start_hostile, task_head

pytestmark = pytest.mark.federation
READS = ("open", "sqlite3.connect", "os.listdir", "os.scandir")


def reads_of(federation: Federation, site: str) -> int:
    """How often the agent of a site has opened case data so far, by the witness in its process."""
    notes = federation.witness / f"{federation.sites[site].pid}.jsonl"
    return sum(json.loads(line)["event"] in READS for line in notes.read_text().splitlines())


def test_an_approved_study_reads_case_data(federation: Federation, whole_run: object) -> None:
    assert (
        min(reads_of(federation, site) for site in SITES) > 18
    )  # the witness sees: each image at least once


def test_a_study_that_no_site_approved_causes_no_read(federation: Federation, whole_run: object) -> None:
    study = federation.study("unapproved", approved_by=("south",))
    approvals.revoke(federation.sites["south"].home.approvals, study.sha256)
    before = {site: reads_of(federation, site) for site in SITES}
    record = federation.run(study)
    assert record["state"] == "failed"
    assert set(record["refused"]) == set(SITES)
    assert all(re.fullmatch(r"REFUSED [0-9a-f]{12}", code) for code in record["refused"].values())
    assert {site: reads_of(federation, site) for site in SITES} == before
    for name in SITES:  # and each engineer can read what was asked for
        kept = requests.listed(federation.sites[name].home)
        assert study.sha256 in {request.study_hash for request in kept}


def test_a_study_altered_after_its_approval_or_for_other_sites_causes_no_read(
    federation: Federation, whole_run: object, tmp_path: Path
) -> None:
    approved = federation.study("altered")
    texts = {
        "south is not named": federation.study(
            "for-others", sites=("north", "east"), approved_by=SITES
        ).canonical(),
        "altered": approved.canonical().replace('"batch_size":8', '"batch_size":4'),
        "written otherwise": json.dumps(json.loads(approved.canonical()), indent=1),
        "not a study": "{}",
    }
    for what, text in texts.items():
        assert text != approved.canonical()
        hostile = start_hostile(federation, tmp_path / "marker", text)
        hostile.lie_about_the_bundle()
        before = reads_of(federation, "south")
        (answer,) = hostile.ask([("south", "query", task_head(approved.sha256))])
        assert re.fullmatch(r"(REFUSED|CONFIG) [0-9a-f]{12}", answer[1]), (what, answer)
        assert reads_of(federation, "south") == before, what


def test_a_policy_that_asks_for_signatures_stops_a_run_that_was_approved_without(
    federation: Federation, whole_run: object
) -> None:
    """A real agent takes up a policy without a restart; each other reason is in test_refusals."""
    study = federation.study("unsigned", sites=("south",), quorum=1)
    south = federation.sites["south"]
    south.home.rules.write_text("commercial_interest: true")
    try:
        before = reads_of(federation, "south")
        record = federation.run(study)
        assert record["state"] == "failed"
        assert reads_of(federation, "south") == before
    finally:
        south.home.rules.unlink()
    (line,) = south.ledger(f"run-{federation.runs.get('unsigned-1').flower_id}")
    assert (line["kind"], line["reason"]) == ("error", "UNSIGNED_APPROVAL")
    assert record["refused"] == {"south": f"REFUSED {line['reference']}"}
