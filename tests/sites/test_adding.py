from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from dicom_files import encode, radiograph, save
from fedai_site.adding import Added, add_data
from fedai_site.catalogue import Catalogue
from fedai_site.deidentify import create_secret
from fedai_site.deidentify.review import decide, listed

from fedai.errors import ConfigError, DataError

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "keys").mkdir(parents=True)
    create_secret(tmp_path / "home" / "keys" / "pseudonym.key")
    return tmp_path / "home"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Two patients, three images, and four files that are no use."""
    folder = tmp_path / "export"
    for number, patient in enumerate(["HONG1", "HONG1", "KIM2"]):
        image = radiograph(number, patient, AccessionNumber=f"ACC{number}")
        save(image, folder / patient / f"Hong^Gildong {number}.dcm")
    (folder / "truncated.dcm").write_bytes(encode(radiograph(5))[:-50])
    (folder / "notes.txt").write_text("Hong Gildong")
    save(radiograph(6, PixelData=None), folder / "no pixels.dcm")
    save(radiograph(7, PixelData=b"12"), folder / "wrong size.dcm")
    return folder


def labels(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def balanced(added: Added) -> bool:
    return added.found == added.written + added.already + added.duplicates + sum(added.quarantined.values())


def test_usable_images_are_catalogued_and_the_rest_is_quarantined_with_a_reason(
    home: Path, export: Path
) -> None:
    steps: list[tuple[int, int]] = []
    added = add_data(home, export, None, progress=lambda done, total: steps.append((done, total)))
    expected = {"NOT_DICOM": 1, "NO_PIXELS": 1, "PIXEL_SIZE": 1, "TRUNCATED": 1}
    assert added.quarantined == expected
    assert (added.found, added.written, added.unlabelled) == (7, 3, 3)
    assert balanced(added)
    assert steps == [(number, 7) for number in range(1, 8)]


def test_a_second_run_changes_nothing(home: Path, export: Path) -> None:
    first = add_data(home, export, None)
    files = {path: path.stat().st_mtime_ns for path in home.rglob("*.dcm")}
    second = add_data(home, export, None)
    assert (second.written, second.already, second.quarantined) == (0, 3, first.quarantined)
    assert files == {path: path.stat().st_mtime_ns for path in home.rglob("*.dcm")}


def test_an_object_that_two_patients_claim_is_nobodys_whichever_comes_first(home: Path, export: Path) -> None:
    assert add_data(home, export, None).written == 3
    save(radiograph(8, SOPInstanceUID="1.2.3.1", patient="LEE3"), export / "a reused uid.dcm")
    for _ in range(2):
        added = add_data(home, export, None)
        assert (added.already, added.quarantined["UID_REUSED"]) == (2, 2)
        assert balanced(added)
        with Catalogue(home / "catalogue.sqlite") as catalogue:
            assert len(catalogue.labelled()) == len(list((home / "clean").rglob("*.dcm"))) == 2


def test_a_copy_of_an_object_is_one_object(home: Path, export: Path) -> None:
    shutil.copy(export / "KIM2" / "Hong^Gildong 2.dcm", export / "zz copy.dcm")
    for _ in range(2):
        added = add_data(home, export, None)
        assert added.duplicates == 1
        assert balanced(added)
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        assert len(catalogue.labelled()) == 3


def test_another_content_of_an_object_waits_as_a_conflict_until_a_person_chooses_it(
    home: Path, export: Path
) -> None:
    save(radiograph(2, "KIM2", AccessionNumber="ACC2", rows=18), export / "again.dcm")
    added = add_data(home, export, None)
    assert (added.written, added.quarantined["CONFLICT"], added.duplicates) == (3, 1, 0)
    assert balanced(added)
    (item,) = (one for one in listed(home / "deid") if one["reason"] == "CONFLICT")
    before = {path: path.read_bytes() for path in home.rglob("*.dcm")}
    decide(home / "deid", item["item"], "release", by="Anna", reason="the later export")
    for _ in range(2):
        assert add_data(home, export, None).quarantined["CONFLICT"] == 1
        after = {path: path.read_bytes() for path in home.rglob("*.dcm")}
        assert before.keys() == after.keys()
        assert sum(before[path] != after[path] for path in before) == 1


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_clean_file_that_is_gone_or_changed_is_written_again(home: Path, export: Path, damage: str) -> None:
    add_data(home, export, None)
    clean = next(home.rglob("*.dcm"))
    content = clean.read_bytes()
    clean.unlink() if damage == "deleted" else clean.write_bytes(b"other")
    assert add_data(home, export, None).written == 1
    assert clean.read_bytes() == content


def test_the_result_does_not_depend_on_the_order_of_the_files(
    home: Path, export: Path, tmp_path: Path
) -> None:
    add_data(home, export, None)
    other = tmp_path / "other"
    (other / "keys").mkdir(parents=True)
    shutil.copy2(home / "keys" / "pseudonym.key", other / "keys")
    for folder in sorted(export.iterdir(), reverse=True):
        if folder.is_dir():
            add_data(other, folder, None)
    contents = [sorted(path.relative_to(base) for path in base.rglob("*.dcm")) for base in (home, other)]
    assert contents[0] == contents[1]
    assert all((home / path).read_bytes() == (other / path).read_bytes() for path in contents[0])


@pytest.mark.parametrize(
    ("text", "labelled", "unknown"),
    [
        ("PatientID,label\nHONG1,nodule\nNOBODY,nodule\nKIM2,normal\nLEE3,normal\n", 3, (3, 5)),
        ("AccessionNumber,label\nACC0,nodule\nACC9,nodule\n", 1, (3,)),
        ("SOPInstanceUID,label\n1.2.3.2,nodule\n1.2.3.3,normal\n", 2, ()),
    ],
)
def test_labels_find_their_images_before_the_keys_are_gone(
    home: Path, export: Path, text: str, labelled: int, unknown: tuple[int, ...]
) -> None:
    added = add_data(home, export, labels(home, text))
    assert (added.labelled, added.unknown_labels) == (labelled, unknown)
    assert added.label_rows == text.count("\n") - 1


def test_labels_may_come_later_and_may_be_corrected(home: Path, export: Path) -> None:
    add_data(home, export, None)
    for label in ("nodule", "normal"):
        assert add_data(home, export, labels(home, f"PatientID,label\nHONG1,{label}\n")).labelled == 2
        with Catalogue(home / "catalogue.sqlite") as catalogue:
            assert {entry.label for entry in catalogue.labelled()} == {label, None}


def test_a_wrong_label_file_stops_before_any_image_is_opened(home: Path, export: Path) -> None:
    with pytest.raises(ConfigError, match="another label than line 2"):
        add_data(home, export, labels(home, "PatientID,label\nHONG1,nodule\nHONG1,normal\n"))
    assert not (home / "clean").exists()


def test_nothing_behind_the_door_holds_a_name_or_number(home: Path, export: Path) -> None:
    add_data(home, export, labels(home, "PatientID,label\nHONG1,nodule\nNOBODY,normal\n"))
    for name in ("catalogue.sqlite", "deid/state.sqlite"):
        with sqlite3.connect(home / name) as database:
            database.execute(
                "DELETE FROM sources"
            )  # the one table that may hold names: where files came from
            database.commit()
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in home.rglob("*"):
        assert "Hong" not in path.name
        content = path.read_bytes() if path.is_file() and path.name != "labels.csv" else b""
        assert not [
            word for word in (b"HONG1", b"KIM2", b"ACC1", b"NOBODY", b"Hong", b"1.2.3.") if word in content
        ]


def test_a_missing_folder_or_key_is_said_at_once(home: Path, export: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        add_data(home, export / "none", None)
    (home / "keys" / "pseudonym.key").chmod(0o644)
    with pytest.raises(ConfigError, match="other users"):
        add_data(home, export, None)
    (home / "keys" / "pseudonym.key").unlink()
    with pytest.raises(ConfigError, match="missing"):
        add_data(home, export, None)


def test_another_key_is_refused_once_the_catalogue_is_filled(home: Path, export: Path) -> None:
    add_data(home, export, None)
    (home / "keys" / "pseudonym.key").unlink()
    create_secret(home / "keys" / "pseudonym.key")
    with pytest.raises(ConfigError, match="another pseudonym key"):
        add_data(home, export, None)


def test_a_full_disk_is_said_and_a_rerun_continues(
    home: Path, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace
    written = 0

    def fill_up(self: Path, target: Path) -> Path:
        nonlocal written
        written += 1
        if written == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fill_up)
    with pytest.raises(DataError, match="the disk is full"):
        add_data(home, export, None)
    assert not list(home.rglob("*.part"))
    monkeypatch.undo()
    added = add_data(home, export, None)
    assert (added.already, added.written) == (1, 2)


ON_A_SMALL_DISK = """
import sys; from pathlib import Path
from fedai.errors import DataError
from fedai_site.adding import add_data
from fedai_site.deidentify import create_secret
from fedai_site.deidentify.review import decide, listed
home = Path(sys.argv[1]); (home / "keys").mkdir(); create_secret(home / "keys" / "pseudonym.key")
try:
    add_data(home, Path(sys.argv[2]), None)
except DataError as error:
    print(error)
"""


def test_a_disk_that_is_really_full_is_said(tmp_path: Path) -> None:
    for number in range(40):
        save(radiograph(number, rows=128, columns=128), tmp_path / "export" / f"{number}.dcm")
    small = tmp_path / "small"
    small.mkdir()
    mount = 'mount -t tmpfs -o size=400k tmpfs "$1" && exec "$2" -c "$3" "$1" "$4"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", str(small), sys.executable, ON_A_SMALL_DISK]
    if not shutil.which("unshare"):
        pytest.skip("no unshare")
    ran = subprocess.run([*command, str(tmp_path / "export")], capture_output=True, text=True, timeout=60)
    if "Operation not permitted" in ran.stderr or "permission denied" in ran.stderr.lower():
        pytest.skip("not allowed to mount a small disk here")
    assert "the disk is full" in ran.stdout, ran.stderr


@pytest.mark.skipif(not TEST_FILES.is_dir(), reason="pydicom came without its test files")
def test_pydicom_s_own_files_all_end_as_an_image_or_in_quarantine(home: Path) -> None:
    added = add_data(home, TEST_FILES, None)
    assert balanced(added)
    assert added.written >= 60
    outlines = added.quarantined["SEGMENTATION"]
    assert added.written + added.duplicates + added.quarantined["CONFLICT"] + outlines >= 87
    expected = "DICOMDIR NOT_DICOM NO_PIXELS STRUCTURED_REPORT SUSPICIOUS_CONTENT TRUNCATED UNDECODABLE"
    assert set(added.quarantined) <= {
        *expected.split(),
        "UNKNOWN_SOP_CLASS",
        "UNREADABLE",
        "CONFLICT",
        "SEGMENTATION",
    }
    from fedai_site import intake

    for path in home.rglob("*.dcm"):
        assert intake.pixels(path).size > 0
        kept = intake.read(path)
        assert kept.PatientIdentityRemoved == "YES"
        assert not [element for element in kept.iterall() if element.tag.is_private]


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_a_cluster_fills_the_catalogue_as_one_machine_does(tmp_path: Path, engine: str) -> None:
    pytest.importorskip({"dask": "distributed"}.get(engine, engine))
    secret = tmp_path / "pseudonym.key"
    create_secret(secret)
    for number in range(6):
        save(radiograph(number, f"P{number}"), tmp_path / "in" / f"{number}.dcm")
    found = []
    for name, more in (("one", {}), ("many", {"engine": engine, "processes": 2})):
        home = tmp_path / name
        (home / "keys").mkdir(parents=True)
        (home / "keys" / "pseudonym.key").write_bytes(secret.read_bytes())
        (home / "keys" / "pseudonym.key").chmod(0o600)
        add_data(home, tmp_path / "in", None, **more)  # type: ignore[arg-type]
        with Catalogue(home / "catalogue.sqlite") as catalogue:
            found.append([(entry.id, entry.sha256, entry.traits) for entry in catalogue.labelled()])
    assert found[0] == found[1]
    assert len(found[0]) == 6
