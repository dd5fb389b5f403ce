from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fedai_site import approvals
from hypothesis import given
from hypothesis import strategies as st
from studies import small_study

STUDY = small_study()


def approved(folder: Path) -> Path:
    """The file of a fresh approval."""
    approvals.approve(folder, STUDY, "Dr. Who")
    return folder / f"{STUDY.sha256}.json"


def test_a_study_is_approved_once_somebody_said_so_and_until_it_is_revoked(tmp_path: Path) -> None:
    assert not approvals.find(tmp_path, STUDY)
    approvals.approve(tmp_path, STUDY, "Dr. Who")
    assert approvals.find(tmp_path, STUDY)
    assert approvals.is_approved_quickly(tmp_path, STUDY)
    assert approvals.revoke(tmp_path, STUDY.sha256)
    assert not approvals.find(tmp_path, STUDY)
    assert not approvals.is_approved_quickly(tmp_path, STUDY)
    assert not approvals.revoke(tmp_path, STUDY.sha256)


def test_saying_yes_twice_changes_nothing(tmp_path: Path) -> None:
    first = approvals.approve(tmp_path, STUDY, "Dr. Who")
    assert approvals.approve(tmp_path, STUDY, "somebody else") == first
    assert approvals.approvals(tmp_path) == [first]
    assert (first.study_name, first.version, first.approved_by) == ("small", 1, "Dr. Who")


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "Tests. "},
        {"version": 2},
        {"training": {"seed": 8}},
        {"training": {"rounds": 3}},
        {"sites": ["north", "east"]},
        {"rounds": {"deadline_s": 5.001}},
        {"judgement": {"threshold": 0.51}},
    ],
)
def test_any_change_of_a_study_needs_a_new_yes(change: dict[str, object], tmp_path: Path) -> None:
    approved(tmp_path)
    other = small_study(**change)
    assert not approvals.find(tmp_path, other)
    assert not approvals.is_approved_quickly(tmp_path, other)


@given(st.integers(0, len(STUDY.canonical()) - 1), st.characters(codec="ascii"))
def test_an_approval_of_which_one_character_differs_is_none(place: int, character: str) -> None:
    with TemporaryDirectory() as folder:
        path = approved(Path(folder))
        kept = json.loads(path.read_text())
        other = kept["study"][:place] + character + kept["study"][place + 1 :]
        path.write_text(json.dumps({**kept, "study": other}))
        assert bool(approvals.find(Path(folder), STUDY)) == (other == kept["study"])


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"null", b"\xff", b"{}", b'{"study": 7}', b"[" * 99_999]
)
def test_a_broken_file_is_no_approval_and_breaks_nothing(content: bytes, tmp_path: Path) -> None:
    path = approved(tmp_path)
    path.write_bytes(content)
    assert not approvals.find(tmp_path, STUDY)
    assert approvals.approvals(tmp_path) == []
    approvals.approve(tmp_path, STUDY, "Dr. Who")
    assert approvals.find(tmp_path, STUDY)


def test_one_studys_approval_under_anothers_name_is_none(tmp_path: Path) -> None:
    other = small_study(version=2)
    approved(tmp_path).rename(tmp_path / f"{other.sha256}.json")
    assert not approvals.find(tmp_path, other)
    assert approvals.approvals(tmp_path) == []


def test_a_home_without_approvals_approves_nothing(tmp_path: Path) -> None:
    assert approvals.approvals(tmp_path / "none") == []
    assert not approvals.find(tmp_path / "none", STUDY)
