from __future__ import annotations

from pathlib import Path

import pytest
from fedai_site import approvals, requests
from fedai_site.home import SiteHome
from homes import make_home, told
from studies import small_study

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
