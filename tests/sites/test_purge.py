from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fedai_site import approvals, cache, receipts, requests
from fedai_site.agent import alone
from fedai_site.catalogue import Catalogue
from fedai_site.cohort import select
from fedai_site.home import SiteHome
from homes import make_home, told
from studies import small_study

from fedai.study import Study


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return make_home(tmp_path, patients=6)


def used(home: SiteHome, study: Study, run: str) -> Path:
    """What a run of a study leaves in a home: splits, arrays, a kept answer, the snapshot of its cohort."""
    cohort = select(home.folder, study)
    cache.load(home.folder, cohort.splits["train"], study.preprocessing)
    folder = home.runs / run / f"7-{study.sha256}" / "replies"
    folder.mkdir(parents=True)
    answer = folder / "train-1.npz"
    np.savez(answer, parameters=np.random.default_rng(1).normal(size=5000))
    (home.approvals / f"{study.sha256}.cohort").write_text("\n".join(approvals.case_marks(cohort)))
    return answer


def test_a_purge_deletes_what_the_study_left_and_proves_it(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study()
    answer = used(home, study, "small-1")
    (tmp_path / "study.json").write_text(study.canonical())
    code, facts = told(capsys, "purge", home.folder, tmp_path / "study.json")
    assert code == 0
    assert facts["deleted"]["files"] > 2
    assert facts["deleted"]["splits_of_patients"] == 6
    assert not answer.exists()
    assert not cache.folder_of(home.folder, study.preprocessing).exists()
    assert not (home.approvals / f"{study.sha256}.cohort").exists()
    with Catalogue(home.catalogue) as catalogue:
        assert catalogue.splits(study.split_plan) == {}
    assert receipts.verify(Path(facts["file"]), home.folder / "keys" / "receipts.pub")["study"] == study.name


def test_other_studies_keep_what_is_theirs(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, other = small_study(), small_study(name="other")
    answer = used(home, study, "small-1")
    kept = used(home, other, "other-1")
    np.savez(kept, parameters=np.random.default_rng(2).normal(size=5000))
    approvals.approve(home.approvals, other, "kim")
    (tmp_path / "study.json").write_text(study.canonical())
    assert told(capsys, "purge", home.folder, tmp_path / "study.json")[0] == 0
    assert (answer.exists(), kept.exists()) == (False, True)
    assert cache.folder_of(home.folder, other.preprocessing).exists()  # the same arrays serve both
    with Catalogue(home.catalogue) as catalogue:
        assert len(catalogue.splits(other.split_plan)) == 6


def test_a_copy_under_another_name_is_found_and_there_is_no_receipt(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study()
    answer = used(home, study, "small-1")
    (home.folder / "notes.bin").write_bytes(b"x" * 100 + answer.read_bytes())
    (tmp_path / "study.json").write_text(study.canonical())
    code, error = told(capsys, "purge", home.folder, tmp_path / "study.json")
    assert code != 0
    assert "notes.bin" in error["error"]["where"]
    assert not list(home.receipts.glob("purge-*"))


def test_an_approved_study_or_one_whose_agent_runs_is_not_purged(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study()
    answer = used(home, study, "small-1")
    (tmp_path / "study.json").write_text(study.canonical())
    with alone(home.folder):
        assert told(capsys, "purge", home.folder, tmp_path / "study.json")[0] == 2
    approvals.approve(home.approvals, small_study(version=2), "kim")
    code, error = told(capsys, "purge", home.folder, tmp_path / "study.json")
    assert (code, "revoke" in error["error"]["hint"]) == (2, True)
    assert answer.exists()


def test_a_second_purge_still_finds_the_copy_that_the_first_one_found(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study()
    answer = used(home, study, "small-1")
    copy = home.runs / "my-notes.npz"
    copy.write_bytes(answer.read_bytes())
    (tmp_path / "study.json").write_text(study.canonical())
    for _ in range(2):
        code, error = told(capsys, "purge", home.folder, tmp_path / "study.json")
        assert (code, "my-notes" in error["error"]["where"]) == (3, True)
    copy.unlink()
    assert told(capsys, "purge", home.folder, tmp_path / "study.json")[0] == 0
    assert list((home.folder / "unfinished").iterdir()) == []


def test_what_was_asked_for_goes_too(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = requests.keep(home, small_study())
    assert told(capsys, "purge", home.folder, kept)[0] == 0
    assert not kept.exists()


def test_a_study_whose_name_begins_alike_keeps_its_runs(
    home: SiteHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, longer, misnamed = small_study(), small_study(name="small-2"), small_study(name="other")
    own = used(home, study, "small-1")
    kept = [used(home, longer, "small-2-1"), used(home, misnamed, "small-7")]
    for number, path in enumerate(kept):
        np.savez(path, parameters=np.random.default_rng(10 + number).normal(size=5000))
    approvals.approve(home.approvals, misnamed, "kim")
    (tmp_path / "study.json").write_text(study.canonical())
    assert told(capsys, "purge", home.folder, tmp_path / "study.json")[0] == 0
    assert [path.exists() for path in (own, *kept)] == [False, True, True]
