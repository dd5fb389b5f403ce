"""Folders, ZIP archives and media directories as ways in."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_files import encode, radiograph, save
from fedai_site import archives
from fedai_site.adding import Added, add_data
from fedai_site.catalogue import Catalogue
from fedai_site.deidentify import create_secret
from fedai_site.deidentify.objects import Settings
from fedai_site.deidentify.output import Job
from fedai_site.deidentify.profile import BASIC
from fedai_site.deidentify.review import listed
from fedai_site.deidentify.run import run
from fedai_site.quarantine import Quarantine, Reason
from fedai_site.sources import Folder
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "keys").mkdir(parents=True)
    create_secret(tmp_path / "home" / "keys" / "pseudonym.key")
    return tmp_path / "home"


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def images(number: int) -> dict[str, bytes]:
    return {f"Hong^Gildong/{n}.dcm": encode(radiograph(n, f"P{n}")) for n in range(number)}


def known(home: Path) -> set[str]:
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        return {entry.id for entry in catalogue.labelled()}


def reasons(added: Added) -> dict[str, int]:
    return added.quarantined


def test_the_images_of_a_zip_archive_are_those_of_the_same_folder(home: Path, tmp_path: Path) -> None:
    members = images(3) | {"notes.txt": b"Hong Gildong", "again.dcm": encode(radiograph(1, "P1"))}
    (tmp_path / "export").mkdir()
    zipped(tmp_path / "export" / "cd.ZIP", members)
    added = add_data(home, tmp_path / "export", None)
    assert (added.found, added.written, added.duplicates, reasons(added)) == (5, 3, 1, {"NOT_DICOM": 1})
    again = add_data(home, tmp_path / "export" / "cd.ZIP", None)
    assert (again.written, again.already, again.duplicates) == (0, 3, 1)
    for name, data in members.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(data)
    assert add_data(home, tmp_path / "plain", None).duplicates == 4
    assert len(known(home)) == 3


def test_what_members_are_called_is_kept_nowhere(home: Path, tmp_path: Path) -> None:
    names = {"../../../escaped.dcm", "/absolute.dcm", "C:\\Hong^Gildong.dcm", "notes \x07Gildong.txt"}
    archive = zipped(tmp_path / "cd.zip", {name: encode(radiograph(n)) for n, name in enumerate(names)})
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(home)}
    added = add_data(home, archive, None)
    assert added.written == 4
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(home)} == before
    for path in home.rglob("*"):
        assert "Gildong" not in path.name
        assert not path.is_file() or b"Gildong" not in path.read_bytes()


def test_where_a_quarantined_member_lies_can_be_looked_up(home: Path, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "cd.zip", images(2) | {"bad.dcm": encode(radiograph(7))[:-50]})
    add_data(home, archive, None)
    (item,) = listed(home / "deid")
    assert item["reason"] == "TRUNCATED"
    assert item["sources"] == [str(archive / "000003")]


def bomb(path: Path) -> Path:
    return zipped(path, {f"{n}.dcm": bytes(20 << 20) for n in range(2)})


def overlapping(path: Path) -> Path:
    """Two entries of the list of members that lead to the same bytes."""
    zipped(path, {"a.dcm": os.urandom(4096)}, zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    at = raw.find(b"PK\x01\x02")
    end = raw.find(b"PK\x05\x06")
    entry = bytes(raw[at:end])
    tail = bytearray(raw[end:])
    struct.pack_into("<HHI", tail, 8, 3, 3, 3 * len(entry))
    path.write_bytes(bytes(raw[:at]) + entry * 3 + bytes(tail))
    return path


def huge_list(path: Path) -> Path:
    """Says that its list of members is longer than is read."""
    zipped(path, {"a.dcm": b"x"})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.find(b"PK\x05\x06") + 12, archives.DIRECTORY_BYTES + 1)
    path.write_bytes(bytes(raw))
    return path


@pytest.mark.parametrize("make", [bomb, overlapping, huge_list])
def test_an_archive_made_to_exhaust_is_refused_and_the_rest_goes_on(
    home: Path, tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "ALL_UNFOLDED", 16 << 20)
    folder = tmp_path / "export"
    folder.mkdir()
    make(folder / "bad.zip")
    save(radiograph(1), folder / "good.dcm")
    added = add_data(home, folder, None)
    assert (added.written, reasons(added)) == (1, {"TOO_LARGE": 1})


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    archive = zipped(tmp_path / "cd.zip", images(3))
    assert list(archives.with_members(archive)) == [archive]
    with pytest.raises(Quarantine) as caught:
        archives.read(archive)
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_member_that_unfolds_to_too_much_is_left_out_alone(home: Path, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "cd.zip", images(2) | {"zeros.dcm": bytes(100 << 20)})
    added = add_data(home, archive, None)
    assert (added.written, reasons(added)) == (2, {"TOO_LARGE": 1})


def test_encrypted_damaged_and_nested_members_are_left_out_alone(home: Path, tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", images(1)).read_bytes()
    archive = zipped(tmp_path / "cd.zip", images(3) | {"inner.zip": inner})
    raw = bytearray(archive.read_bytes())
    first = raw.find(b"PK\x01\x02")
    raw[first + 8] |= 1  # the first says that it is encrypted
    second = raw.find(b"PK\x03\x04", 10)
    raw[second + 60] ^= 0xFF
    archive.write_bytes(bytes(raw))
    added = add_data(home, archive, None)
    assert (added.found, added.written, reasons(added)) == (4, 1, {"NOT_DICOM": 1, "UNREADABLE": 2})


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_of_an_archive_ends_the_reading(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    archive = zipped(folder / "cd.zip", images(2))
    raw = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    for path in Folder(folder).paths():
        assert reason_of(path) in (None, "UNREADABLE", "TOO_LARGE", "NOT_DICOM", "MISSING")


def reason_of(path: Path) -> Reason | None:
    """Why a path can't be read, None if it can."""
    try:
        archives.read(path)
    except Quarantine as error:
        return error.reason
    return None


def medium(folder: Path, number: int = 3) -> Path:
    """A medium with a media directory and files in its own folders."""
    files = FileSet()
    for n in range(number):
        image: Dataset = radiograph(n, f"P{n}", StudyDate="20200101", StudyTime="120000", StudyID="1",
                                    SeriesNumber=1, InstanceNumber=1, AccessionNumber="")  # fmt: skip
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        files.add(save(image, folder.parent / "staged" / f"{n}.dcm"))
    files.write(folder)
    return folder


def test_the_images_of_a_medium_are_taken_and_its_directory_is_none(home: Path, tmp_path: Path) -> None:
    added = add_data(home, medium(tmp_path / "cd"), None)
    assert (added.written, reasons(added)) == (3, {"DICOMDIR": 1})


def test_a_file_that_a_medium_lists_and_hasnt_is_told(home: Path, tmp_path: Path) -> None:
    folder = medium(tmp_path / "cd")
    gone = next(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR")
    gone.unlink()
    added = add_data(home, folder, None)
    assert (added.written, reasons(added)) == (2, {"DICOMDIR": 1, "MISSING": 1})
    assert str(gone) in {path for item in listed(home / "deid") for path in item["sources"]}


def test_a_medium_copied_in_small_letters_is_whole(home: Path, tmp_path: Path) -> None:
    folder = medium(tmp_path / "cd")
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(path.name.lower()))
    assert reasons(add_data(home, folder, None)) == {"DICOMDIR": 1}


def test_a_media_directory_leads_nowhere_else(tmp_path: Path) -> None:
    folder = medium(tmp_path / "cd")
    raw = (folder / "DICOMDIR").read_bytes()
    listing = raw.replace(b"PT000000", b"../../..")
    assert listing != raw
    (folder / "DICOMDIR").write_bytes(listing)
    paths = list(Folder(folder).paths())
    assert paths
    assert all(".." not in path.parts for path in paths)


def test_links_are_not_followed(tmp_path: Path) -> None:
    save(radiograph(1), tmp_path / "elsewhere" / "1.dcm")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "link.dcm").symlink_to(tmp_path / "elsewhere" / "1.dcm")
    (tmp_path / "export" / "folder").symlink_to(tmp_path / "elsewhere")
    assert list(Folder(tmp_path / "export").paths()) == []


def test_the_home_in_an_export_is_none_of_it(home: Path, tmp_path: Path) -> None:
    save(radiograph(1), tmp_path / "1.dcm")
    shutil.copy(tmp_path / "1.dcm", home / "2.dcm")
    assert add_data(home, tmp_path, None).found == 1


def test_a_folder_that_cant_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(radiograph(1), tmp_path / "export" / "open" / "1.dcm")
    (tmp_path / "export" / "closed").mkdir()
    listdir = os.listdir

    def refuse(folder: Path) -> list[str]:
        if Path(folder).name == "closed":
            raise PermissionError
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    found = list(Folder(tmp_path / "export").paths())
    assert found == [tmp_path / "export" / "closed", tmp_path / "export" / "open" / "1.dcm"]
    with pytest.raises(Quarantine) as caught:
        archives.read(found[0])
    assert caught.value.reason == Reason.UNREADABLE


def test_clean_files_of_an_archive_keep_its_members_numbers_where_names_are_kept(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    zipped(tmp_path / "in" / "cd.zip", images(2))
    settings_ = Settings(BASIC, home / "keys" / "pseudonym.key", pixels=False, faces=False)
    job = Job(tmp_path / "in", tmp_path / "out", tmp_path / "private", settings_, keep_names=True)
    for _ in range(2):
        assert run(job).found == 2
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    names = {path.relative_to(tmp_path / "out").as_posix() for path in written}
    assert names == {"cd.zip/000001", "cd.zip/000002", "evidence.jsonl"}
    assert run(job).already == 2
