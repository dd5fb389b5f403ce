"""The inbox, and what becomes of originals that an archive has sent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pydicom
import pytest
from dicom_files import encode, radiograph
from fedai_site import inbox
from fedai_site.adding import Added, add_inbox
from fedai_site.catalogue import Catalogue
from fedai_site.deidentify import create_secret, output
from fedai_site.deidentify.review import decide, listed


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "keys").mkdir(parents=True)
    create_secret(tmp_path / "home" / "keys" / "pseudonym.key")
    return tmp_path / "home"


def put(home: Path, data: bytes) -> Path:
    folder = inbox.open_inbox(home)
    return inbox.store(folder, folder / inbox.PARTS / "part", iter([data[:100], data[100:]]))


def lying(home: Path) -> list[Path]:
    return list(inbox.waiting(home / inbox.INBOX))


def hashes(home: Path) -> dict[str, str]:
    """Object -> SHA-256 of its clean file, as catalogued; each is checked to be there."""
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        entries = catalogue.labelled()
    assert {home / entry.path for entry in entries} == set((home / "clean").rglob("*.dcm"))
    return {entry.id: entry.sha256 for entry in entries}


def balanced(added: Added) -> bool:
    return added.found == added.written + added.already + added.duplicates + sum(added.quarantined.values())


def test_an_original_lies_under_the_hash_of_its_bytes_for_its_owner_only(home: Path) -> None:
    path = put(home, b"some bytes" * 100)
    assert path.read_bytes() == b"some bytes" * 100
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, home / "inbox")} == {0o700}
    assert put(home, b"some bytes" * 100) == path
    assert lying(home) == [path]
    assert list((home / "inbox" / inbox.PARTS).iterdir()) == []


def test_nothing_is_left_of_what_is_too_large_or_ends_early(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> object:
        yield b"x" * 10
        raise ValueError("ended early")

    folder = inbox.open_inbox(home)
    with pytest.raises(ValueError, match="ended early"):
        inbox.store(folder, folder / inbox.PARTS / "part", broken())  # type: ignore[arg-type]
    monkeypatch.setattr(inbox, "MAXIMUM_BYTES", 99)
    with pytest.raises(inbox.TooLarge):
        put(home, b"x" * 100)
    assert [path for path in (home / "inbox").rglob("*") if path.is_file()] == []


def test_what_is_in_the_catalogue_leaves_the_inbox_and_what_is_in_quarantine_stays(home: Path) -> None:
    for number in range(3):
        put(home, encode(radiograph(number)))
    bad = put(home, encode(radiograph(9))[:-50])
    added = add_inbox(home, None)
    assert (added.found, added.written, added.quarantined) == (4, 3, {"TRUNCATED": 1})
    assert lying(home) == [bad]
    assert [item["sources"] for item in listed(home / "deid")] == [[str(bad.resolve())]]
    again = add_inbox(home, None)
    assert (again.found, again.quarantined) == (1, {"TRUNCATED": 1})
    assert len(hashes(home)) == 3


def test_what_is_in_quarantine_isnt_tried_again_until_a_person_has_decided(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedai_site.deidentify import run

    put(home, encode(radiograph(9))[:-50])
    add_inbox(home, None)
    monkeypatch.setattr(run, "clean_file", lambda *_: pytest.fail("tried again"))
    assert add_inbox(home, None).quarantined == {"TRUNCATED": 1}


def test_the_same_object_twice_is_one(home: Path) -> None:
    put(home, encode(radiograph(1)))
    assert add_inbox(home, None).written == 1
    before = hashes(home)
    put(home, encode(radiograph(1)))
    added = add_inbox(home, None)
    assert (added.found, added.written, added.already) == (1, 0, 1)
    assert hashes(home) == before
    assert lying(home) == []


@pytest.mark.parametrize("together", [False, True])
def test_a_new_version_takes_the_place_of_the_older_one(home: Path, together: bool) -> None:
    versions = [encode(radiograph(1, rows=rows)) for rows in (16, 18, 20)]
    seen = []
    for number, data in enumerate(versions):
        path = put(home, data)
        os.utime(path, ns=(0, 10**18 + number))
        if not together:
            added = add_inbox(home, None)
            assert balanced(added)
            seen.append(hashes(home))
    if together:
        added = add_inbox(home, None)
        assert (added.written, added.quarantined) == (1, {"SUPERSEDED": 2})
        seen.append(hashes(home))
    assert lying(home) == []
    put(home, versions[0])  # the archive goes back to the first, which came last now
    added = add_inbox(home, None)
    assert balanced(added)
    assert [len(each) for each in [*seen, hashes(home)]] == [1] * (len(seen) + 1)
    assert hashes(home) != seen[-1]
    if not together:
        assert hashes(home) == seen[0]


def test_which_of_several_versions_came_last_is_found_in_any_order_of_names(home: Path) -> None:
    """Whatever their hashes are: the one that came last stands, every time."""
    for last in range(4):
        for number in range(4):
            path = put(home, encode(radiograph(last, patient=f"P{last}", rows=16 + number)))
            os.utime(path, ns=(0, 10**18 + (100 if number == last else number)))
        add_inbox(home, None)
    rows = {pydicom.dcmread(path).Rows for path in (home / "clean").rglob("*.dcm")}
    assert rows == {16, 17, 18, 19}


def test_an_object_that_two_patients_claim_is_nobodys(home: Path) -> None:
    put(home, encode(radiograph(1, "HONG1")))
    add_inbox(home, None)
    put(home, encode(radiograph(1, "KIM2")))
    added = add_inbox(home, None)
    assert added.quarantined == {"UID_REUSED": 1}
    assert hashes(home) == {}


def test_what_comes_while_it_is_cleaned_is_taken_too(home: Path) -> None:
    def coming() -> object:
        for number in range(5):
            yield put(home, encode(radiograph(number)))
        yield home / "inbox" / "not-given-out" / "1.2.3"

    put(home, encode(radiograph(9)))
    steps: list[tuple[int, int]] = []
    added = add_inbox(
        home,
        None,
        coming=coming,
        progress=lambda done, total: steps.append((done, total)),  # type: ignore[arg-type]
    )
    assert (added.found, added.written, added.quarantined) == (7, 6, {"MISSING": 1})
    assert steps == [(number, 0) for number in range(1, 8)]
    assert lying(home) == []
    assert add_inbox(home, None).found == 0
    assert [item["reason"] for item in listed(home / "deid")] == []


def test_one_that_comes_again_while_it_is_let_go_of_stays(home: Path) -> None:
    path = put(home, b"x" * 50)
    came = path.stat().st_mtime_ns
    os.utime(path, ns=(0, came + 1))
    inbox.release([(path, came), (path.with_name("gone.dcm"), came)])
    assert path.exists()
    inbox.release([(path, came + 1)])
    assert not path.exists()


def test_a_persons_decision_about_one_in_quarantine_is_acted_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedai_site.deidentify import run
    from fedai_site.deidentify.output import Job, Outcome

    decided = []

    def watched(job: Job, fingerprint: str, path: Path) -> Outcome:
        decided.append(job.decisions)
        return output.clean_file(job, fingerprint, path)

    put(home, encode(radiograph(9))[:-50])
    add_inbox(home, None)
    (item,) = listed(home / "deid")
    decide(home / "deid", item["item"], "refuse", by="Anna", reason="not ours")
    monkeypatch.setattr(run, "clean_file", watched)
    assert add_inbox(home, None).quarantined == {"TRUNCATED": 1}
    assert [one["decision"] for decisions in decided for one in decisions.values()] == ["refuse"]


def test_one_that_comes_twice_in_a_run_is_let_go_of_all_the_same(home: Path) -> None:
    data = encode(radiograph(1))

    def coming() -> object:
        yield put(home, data)
        yield put(home, data)
        yield put(home, data).with_name("0" * 64 + ".dcm")  # one that went, whatever the reason

    put(home, data)
    added = add_inbox(home, None, coming=coming)  # type: ignore[arg-type]
    assert (added.found, added.written, added.quarantined) == (2, 1, {"MISSING": 1})
    assert lying(home) == []
    assert len(hashes(home)) == 1


def test_what_was_let_go_of_and_is_told_again_stays_in_the_catalogue(home: Path) -> None:
    data = encode(radiograph(1))
    path = put(home, data)
    add_inbox(home, None)
    assert not path.exists()
    added = add_inbox(home, None, coming=lambda: [path.resolve()])
    assert added.found == 0
    assert len(hashes(home)) == 1
