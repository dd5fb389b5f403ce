from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from fedai_site import approvals, requests
from fedai_site.home import SiteHome
from homes import make_home, told
from studies import small_study

from fedai.cli.app import run
from fedai.signatures import sign_study, signature_file, write_key
from fedai.study import read_study


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return make_home(tmp_path, patients=6)


def test_a_study_waits_with_its_signature_until_it_is_decided(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, file, key = small_study(), tmp_path / "study.yaml", tmp_path / "coordinator.key"
    file.write_text(study.canonical())
    write_key(key)
    sign_study(file, study.sha256, key)
    _, found = told(capsys, "inbox", home.folder, file)
    (request,) = found["requests"]
    assert (request["state"], request["study_hash"]) == ("NOT_APPROVED", study.sha256)
    kept = Path(request["path"])
    assert read_study(kept).sha256 == study.sha256
    assert signature_file(kept).read_bytes() == signature_file(file).read_bytes()
    assert told(capsys, "approve", home.folder, kept, "--by", "kim")[0] == 0
    assert told(capsys, "inbox", home.folder)[1]["requests"][0]["state"] == "APPROVED"


def test_a_no_ends_a_yes_and_a_later_yes_ends_the_no(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, file = small_study(), tmp_path / "study.yaml"
    file.write_text(study.canonical())
    told(capsys, "approve", home.folder, file, "--by", "kim")
    assert requests.state_of(home, study) == "APPROVED"
    code, _ = told(capsys, "reject", home.folder, file, "--why", "too broad", "--by", "lee")
    assert (code, requests.state_of(home, study)) == (0, "REJECTED")
    (request,) = told(capsys, "inbox", home.folder)[1]["requests"]
    assert (request["state"], request["by"], request["why"]) == ("REJECTED", "lee", "too broad")
    assert requests.state_of(home, small_study(version=2)) == "NOT_APPROVED"
    told(capsys, "approve", home.folder, file, "--by", "kim")
    assert requests.state_of(home, study) == "APPROVED"


def test_a_damaged_no_is_still_a_no(home: SiteHome) -> None:
    study = small_study()
    requests.reject(home, study, "lee", "too broad")
    (home.approvals / approvals.REJECTED / f"{study.sha256}.json").write_text("{")
    assert requests.state_of(home, study) == "REJECTED"


def test_a_server_that_makes_up_studies_fills_no_disk(
    home: SiteHome, caplog: pytest.LogCaptureFixture
) -> None:
    for version in range(1, requests.MOST + 4):
        requests.note(home, small_study(version=version))
    assert len(list((home.folder / "requests").iterdir())) == requests.MOST
    assert "it is not kept" in caplog.text
    requests.keep(home, small_study(version=999))  # the engineer's own are


def test_a_study_larger_than_a_file_may_be_is_not_kept(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAXIMUM_BYTES", 100)
    requests.note(home, small_study())
    assert requests.listed(home) == []
    with pytest.raises(ValueError, match="at most 100"):
        small_study(cohort={"modality": ["CR"] * 101})


def test_a_full_inbox_does_not_stop_a_no(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, file = small_study(), tmp_path / "study.yaml"
    file.write_text(study.canonical())
    told(capsys, "approve", home.folder, file, "--by", "kim")
    for version in range(2, requests.MOST + 4):
        requests.note(home, small_study(version=version))
    assert told(capsys, "reject", home.folder, file, "--why", "no")[0] == 0
    assert requests.state_of(home, study) == "REJECTED"


def test_a_damaged_file_is_no_request(home: SiteHome) -> None:
    path = requests.keep(home, small_study())
    path.write_bytes(b"\xff{")
    assert requests.listed(home) == []


def test_the_inbox_lists_each_study_with_what_became_of_it_the_approved_ones_too(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, what in enumerate(("waiting", "approve", "reject", "revoke"), 1):
        file = tmp_path / f"{what}.yaml"
        file.write_text(small_study(version=number).canonical())
        if what in ("approve", "revoke"):
            told(capsys, "approve", home.folder, file, "--by", "kim")
    told(capsys, "inbox", home.folder, tmp_path / "waiting.yaml")
    told(capsys, "reject", home.folder, tmp_path / "reject.yaml", "--why", "too broad", "--by", "lee")
    told(capsys, "revoke", home.folder, tmp_path / "revoke.yaml")
    assert run(["site", "inbox", str(home.folder)]) == 0
    said = capsys.readouterr().out
    rows = [re.split(r"  +", line)[:2] for line in said.splitlines()[1:5]]
    assert rows == [
        ["small 1", "waiting"], ["small 2", "approved by kim"],
        ["small 3", "rejected by lee: too broad"], ["small 4", "revoked"],
    ]  # fmt: skip
    assert f"next: fedai site review {home.folder} FILE" in said


def test_a_yes_whose_time_is_over_and_one_that_lies_in_no_request_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_home(tmp_path, patients=12)
    approvals.approve(home.approvals, small_study(version=2), "an earlier release")
    home.rules.write_text("{approval_days: 0.000001, commercial_interest: true}")
    (tmp_path / "study.yaml").write_text(small_study().canonical())
    assert told(capsys, "approve", home.folder, tmp_path / "study.yaml", "--by", "kim")[0] == 0
    time.sleep(1.2)  # an approval ends at a whole second
    found = {one["version"]: one for one in told(capsys, "inbox", home.folder)[1]["requests"]}
    assert (found[1]["state"], found[2]["state"]) == ("EXPIRED", "UNSIGNED_APPROVAL")
    assert found[2]["path"] == ""
    assert run(["site", "inbox", str(home.folder)]) == 0
    said = capsys.readouterr().out
    assert "expired by kim" not in said
    assert "expired" in said
    assert "refused as UNSIGNED_APPROVAL" in said
