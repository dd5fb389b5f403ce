from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fedai_site import policy
from hypothesis import given
from hypothesis import strategies as st
from studies import small_study

from fedai.errors import RefusedByPolicy
from fedai.release import BUNDLE_SHA256

STUDY = small_study()


def approved(folder: Path) -> Path:
    """The file of a fresh approval."""
    policy.approve(folder, STUDY, "Dr. Who")
    return folder / f"{STUDY.sha256}.json"


def test_a_study_is_approved_once_somebody_said_so_and_until_it_is_revoked(tmp_path: Path) -> None:
    assert not policy.is_approved(tmp_path, STUDY)
    policy.approve(tmp_path, STUDY, "Dr. Who")
    assert policy.is_approved(tmp_path, STUDY)
    assert policy.is_approved_quickly(tmp_path, STUDY)
    assert policy.revoke(tmp_path, STUDY.sha256)
    assert not policy.is_approved(tmp_path, STUDY)
    assert not policy.is_approved_quickly(tmp_path, STUDY)
    assert not policy.revoke(tmp_path, STUDY.sha256)


def test_saying_yes_twice_changes_nothing(tmp_path: Path) -> None:
    first = policy.approve(tmp_path, STUDY, "Dr. Who")
    assert policy.approve(tmp_path, STUDY, "somebody else") == first
    assert policy.approvals(tmp_path) == [first]
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
    assert not policy.is_approved(tmp_path, other)
    assert not policy.is_approved_quickly(tmp_path, other)
    with pytest.raises(RefusedByPolicy, match="is not approved here"):
        policy.check_study(tmp_path, other, "north")


@given(st.integers(0, len(STUDY.canonical()) - 1), st.characters(codec="ascii"))
def test_an_approval_of_which_one_character_differs_is_none(place: int, character: str) -> None:
    with TemporaryDirectory() as folder:
        path = approved(Path(folder))
        kept = json.loads(path.read_text())
        other = kept["study"][:place] + character + kept["study"][place + 1 :]
        path.write_text(json.dumps({**kept, "study": other}))
        assert policy.is_approved(Path(folder), STUDY) == (other == kept["study"])


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"null", b"\xff", b"{}", b'{"study": 7}', b"[" * 99_999]
)
def test_a_broken_file_is_no_approval_and_breaks_nothing(content: bytes, tmp_path: Path) -> None:
    path = approved(tmp_path)
    path.write_bytes(content)
    assert not policy.is_approved(tmp_path, STUDY)
    assert policy.approvals(tmp_path) == []
    policy.approve(tmp_path, STUDY, "Dr. Who")
    assert policy.is_approved(tmp_path, STUDY)


def test_one_studys_approval_under_anothers_name_is_none(tmp_path: Path) -> None:
    other = small_study(version=2)
    approved(tmp_path).rename(tmp_path / f"{other.sha256}.json")
    assert not policy.is_approved(tmp_path, other)
    assert policy.approvals(tmp_path) == []


def test_a_study_that_does_not_name_the_site_is_refused_even_if_approved(tmp_path: Path) -> None:
    approved(tmp_path)
    policy.check_study(tmp_path, STUDY, "north")
    with pytest.raises(RefusedByPolicy, match="doesn't name this site"):
        policy.check_study(tmp_path, STUDY, "west")


@pytest.mark.parametrize(
    "bundle", ["", "0" * 64, BUNDLE_SHA256.upper(), BUNDLE_SHA256 + " ", BUNDLE_SHA256[:-1]]
)
def test_any_bundle_but_this_releases_is_refused(bundle: str) -> None:
    policy.check_bundle(BUNDLE_SHA256)
    with pytest.raises(RefusedByPolicy, match="not this release's"):
        policy.check_bundle(bundle)


def test_a_home_without_approvals_approves_nothing(tmp_path: Path) -> None:
    assert policy.approvals(tmp_path / "none") == []
    assert not policy.is_approved(tmp_path / "none", STUDY)
