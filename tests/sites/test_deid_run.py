"""A folder in, clean files and evidence out: the same whatever the order, the processes, or a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burned_text import NAME, anatomy, image, ink
from dicom_files import encode, radiograph, save
from fedai_site.deidentify import engines
from fedai_site.deidentify.evidence import fits
from fedai_site.deidentify.objects import Settings, clean_object, has_release
from fedai_site.deidentify.output import Job, clean_file
from fedai_site.deidentify.profile import BASIC, Profile, load_profile
from fedai_site.deidentify.pseudonyms import create_secret
from fedai_site.deidentify.review import decide, listed
from fedai_site.deidentify.run import Ran, prepare, run
from fedai_site.deidentify.vault import create_vault
from fedai_site.quarantine import Quarantine, Reason
from fedai_site.verification import verify
from pydicom import Dataset, dcmread

from fedai.cli.app import run as command
from fedai.errors import ConfigError, RefusedByPolicy


def settings(key: Path, profile: Profile = BASIC) -> Settings:
    return Settings(profile, key, pixels=False, faces=False, board_decision="DRB-1")


def ran(source: Path, out: Path, key: Path, **changes: object) -> Ran:
    processes = changes.pop("processes", 1)
    profile = changes.pop("profile", BASIC)
    job = Job(source, out, out.with_name(f"{out.name}.private"), settings(key, profile), **changes)
    return run(job, processes=processes)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def key(tmp_path: Path) -> Path:
    create_secret(tmp_path / "pseudonym.key")
    return tmp_path / "pseudonym.key"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Two patients, six images, one copy, one text file, one cut file."""
    folder = tmp_path / "export"
    for number in range(6):
        image = radiograph(number, f"KIM{number % 2}", StudyInstanceUID=f"1.2.9.{number % 2}")
        save(image, folder / f"Kim^Minji {number % 2}" / f"{number}.dcm")
    shutil.copy(folder / "Kim^Minji 0" / "0.dcm", folder / "copy.dcm")
    (folder / "notes.txt").write_text("Kim Minji")
    (folder / "cut.dcm").write_bytes(encode(radiograph(7))[:-40])
    return folder


def test_clean_files_lie_under_pseudonyms_and_each_has_evidence_that_fits(
    export: Path, tmp_path: Path, key: Path
) -> None:
    result = ran(export, tmp_path / "out", key)
    assert (result.found, result.written, result.duplicates) == (9, 6, 1)
    assert result.quarantined == {"NOT_DICOM": 1, "TRUNCATED": 1}
    lines = [json.loads(line) for line in result.evidence.read_text().splitlines()]
    files = {path for path in contents(tmp_path / "out") if path.endswith(".dcm")}
    assert files == {line["path"] for line in lines}
    assert all(fits(line, tmp_path / "out") for line in lines)
    assert len({path.split("/")[0] for path in files}) == 2
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"Kim" not in everything
    assert b"KIM" not in everything


def test_names_are_mirrored_when_asked_for(export: Path, tmp_path: Path, key: Path) -> None:
    result = ran(export, tmp_path / "out", key, keep_names=True)
    assert result.written == 7
    assert (tmp_path / "out" / "Kim^Minji 0" / "0.dcm").is_file()
    assert (tmp_path / "out" / "copy.dcm").read_bytes() == (
        tmp_path / "out" / "Kim^Minji 0" / "0.dcm"
    ).read_bytes()


def test_two_processes_write_what_one_writes(export: Path, tmp_path: Path, key: Path) -> None:
    first, second = (ran(export, tmp_path / f"out{n}", key, processes=n) for n in (1, 2))
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")
    assert (first.written, first.duplicates) == (second.written, second.duplicates)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_a_cluster_writes_what_one_process_writes(
    export: Path, tmp_path: Path, key: Path, engine: str
) -> None:
    pytest.importorskip({"dask": "distributed"}.get(engine, engine))
    ran(export, tmp_path / "out1", key)
    job = Job(export, tmp_path / "out2", tmp_path / "out2.private", settings(key))
    assert run(job, engine=engine, processes=2).written == 6
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")


def test_copies_of_one_file_wait_apart_from_each_other(export: Path, tmp_path: Path, key: Path) -> None:
    job = Job(export, tmp_path / "out", tmp_path / "out.private", settings(key))
    twins = (export / "copy.dcm", export / "Kim^Minji 0" / "0.dcm")
    parts = {clean_file(job, "", path).part for path in twins}
    assert len(parts) == 2
    assert all(part is not None and part.is_file() for part in parts)


def test_a_second_run_does_nothing_and_says_so(export: Path, tmp_path: Path, key: Path) -> None:
    ran(export, tmp_path / "out", key)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")}
    again = ran(export, tmp_path / "out", key)
    assert (again.written, again.already, again.duplicates) == (0, 6, 1)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")}


def test_another_file_of_the_same_size_and_time_is_looked_at(tmp_path: Path, key: Path) -> None:
    path = save(radiograph(1, "KIM1"), tmp_path / "export" / "IM0001.dcm")
    ran(tmp_path / "export", tmp_path / "out", key)
    stat = path.stat()
    save(radiograph(2, "LEE2"), path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    result = ran(tmp_path / "export", tmp_path / "out", key)
    assert (result.written, result.already) == (1, 0)
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2


def test_a_clean_file_that_was_changed_with_its_time_kept_is_made_anew_and_told(
    export: Path, tmp_path: Path, key: Path
) -> None:
    ran(export, tmp_path / "out", key)
    before = contents(tmp_path / "out")
    path = next((tmp_path / "out").rglob("*.dcm"))
    stat, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = ran(export, tmp_path / "out", key)
    assert result.restored == 1
    assert result.written + result.already == 6
    assert contents(tmp_path / "out") == before
    assert ran(export, tmp_path / "out", key).restored == 0


def test_a_source_is_the_same_however_its_path_is_written(
    export: Path, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(export, tmp_path / "out", key)
    monkeypatch.chdir(export)
    (tmp_path / "link").symlink_to(export)
    for way in (Path(), Path("../export"), tmp_path / "link"):
        result = ran(way, tmp_path / "out", key)
        assert (result.written, result.already, result.duplicates) == (0, 6, 1)
    assert len(listed(tmp_path / "out.private")) == 2


def test_a_run_tells_in_how_many_files_it_changed_pixels(tmp_path: Path, key: Path) -> None:
    grey = (anatomy() * 180).astype(np.uint8)
    text = np.where(ink(grey.shape, NAME, 20, 20), 255, grey).astype(np.uint8)
    save(image(grey, SOPInstanceUID="1.2.3.50"), tmp_path / "in" / "none.dcm")
    save(image(text, SOPInstanceUID="1.2.3.51"), tmp_path / "in" / "text.dcm")
    searching = replace(settings(key), pixels=True)
    results = [run(Job(tmp_path / "in", tmp_path / "out", tmp_path / "out.private", searching)) for _ in "ab"]
    assert [result.written for result in results] == [2, 0]
    assert [result.text_blanked for result in results] == [1, 0]
    assert [result.faces_removed for result in results] == [0, 0]


def test_other_settings_make_all_files_anew_and_leave_no_old_ones(
    export: Path, tmp_path: Path, key: Path
) -> None:
    ran(export, tmp_path / "out", key)
    old = {path for path in contents(tmp_path / "out") if path.endswith(".dcm")}
    again = ran(export, tmp_path / "out", key, profile=load_profile("basic+uids"))
    new = {path for path in contents(tmp_path / "out") if path.endswith(".dcm")}
    assert again.written == 6
    assert len(new) == 6
    assert not old & new


def test_batches_keep_a_patient_together_and_another_key_has_no_name_in_common(
    export: Path, tmp_path: Path, key: Path
) -> None:
    other = tmp_path / "other.key"
    create_secret(other)
    patients = []
    for number, secret in enumerate((key, key, other)):
        ran(export / f"Kim^Minji {number % 2}", tmp_path / f"b{number}", secret)
        ran(export / f"Kim^Minji {(number + 1) % 2}", tmp_path / f"b{number}", secret)
        patients.append({path.name for path in (tmp_path / f"b{number}").iterdir() if path.is_dir()})
    assert patients[0] == patients[1]
    assert not patients[0] & patients[2]


def test_two_contents_of_one_object_are_both_written_the_same_in_any_order(tmp_path: Path, key: Path) -> None:
    results = []
    for order in ((0, 1), (1, 0)):
        folder = tmp_path / f"in{order[0]}"
        for name, number in zip("ab", order, strict=True):
            save(radiograph(1, "KIM", SOPInstanceUID="1.2.3", KVP=str(100 + number)), folder / f"{name}.dcm")
        ran(folder, tmp_path / f"out{order[0]}", key)
        results.append(
            {name: digest for name, digest in contents(tmp_path / f"out{order[0]}").items() if "dcm" in name}
        )
    assert results[0] == results[1]
    assert len(results[0]) == 2


RUN = """
import sys; from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_deid_run import ran
ran(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), processes=2)
"""


def test_an_object_of_a_makers_own_kind_is_quarantined(tmp_path: Path, key: Path) -> None:
    image = radiograph(1, "KIM1", SOPClassUID="1.3.46.670589.11.0.0.12.1")
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    save(image, tmp_path / "export" / "spectrum.dcm")
    assert ran(tmp_path / "export", tmp_path / "out", key).quarantined == {"UNKNOWN_SOP_CLASS": 1}


def test_what_shows_no_face_stays_given_out_beside_slices_of_its_series(tmp_path: Path, key: Path) -> None:
    one = {"SeriesInstanceUID": "1.2.5.77", "StudyInstanceUID": "1.2.4.77"}
    slice_ = radiograph(1, "KIM1", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", **one)
    slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID
    slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    slice_.PixelSpacing = [1, 1]
    save(slice_, tmp_path / "export" / "slice.dcm")
    save(radiograph(2, "KIM1", **one), tmp_path / "export" / "radiograph.dcm")
    faces = replace(settings(key), faces=True, board_decision="")
    job = Job(tmp_path / "export", tmp_path / "out", tmp_path / "out.private", faces)
    result = run(job)
    assert (result.written, result.quarantined) == (2, {})
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2
    assert len(result.evidence.read_text().splitlines()) == 2


def ct_slice(number: int, **more: object) -> Dataset:
    """One of a series that waits, because it may show a head."""
    image = radiograph(number, "KIM1", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    image.SeriesInstanceUID, image.StudyInstanceUID = "1.2.5.77", "1.2.4.77"
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    image.PixelSpacing = [1, 1]
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    for name, value in more.items():
        setattr(image, name, value)
    return image


def run_with_faces(source: Path, out: Path, key: Path) -> Ran:
    faces = replace(settings(key), faces=True, board_decision="")
    return run(Job(source, out, out.with_name(f"{out.name}.private"), faces))


def test_two_contents_of_an_object_in_a_series_that_waits_are_a_conflict_that_a_person_decides(
    tmp_path: Path, key: Path
) -> None:
    export, out = tmp_path / "export", tmp_path / "out"
    save(ct_slice(0), export / "0.dcm")
    for name, voltage in (("a", "100"), ("b", "120"), ("copy of b", "120")):
        save(ct_slice(1, KVP=voltage), export / f"{name}.dcm")
    first = run_with_faces(export, out, key)
    waiting = first.quarantined["CONFLICT"]
    assert (first.written, first.duplicates + waiting, waiting > 0) == (2, 2, True)
    (item,) = listed(out.with_name("out.private"))
    assert len(item["sources"]) == waiting
    stood = {dcmread(path).KVP for path in out.rglob("*.dcm") if "KVP" in dcmread(path)}
    decide(out.with_name("out.private"), item["item"], "release", by="Anna", reason="the later export")
    second = run_with_faces(export, out, key)
    stands = {dcmread(path).KVP for path in out.rglob("*.dcm") if "KVP" in dcmread(path)}
    assert len(stood) == len(stands) == 1
    assert stood != stands
    assert second.quarantined["CONFLICT"] == 3 - waiting
    assert len(second.evidence.read_text().splitlines()) == 2


def test_identical_files_in_quarantine_are_one_item_and_one_decision(
    export: Path, tmp_path: Path, key: Path
) -> None:
    shutil.copy(export / "cut.dcm", export / "cut copy.dcm")
    ran(export, tmp_path / "out", key)
    (item,) = (one for one in listed(tmp_path / "out.private") if one["reason"] == "TRUNCATED")
    assert [Path(path).name for path in item["sources"]] == ["cut copy.dcm", "cut.dcm"]
    decide(tmp_path / "out.private", item["item"], "refuse", by="Anna", reason="cut")
    assert ran(export, tmp_path / "out", key).quarantined["TRUNCATED"] == 2
    assert [one["decision"] for one in listed(tmp_path / "out.private")].count("refuse") == 1


def test_a_release_covers_only_the_reasons_that_a_person_saw() -> None:
    review = {"decision": "release", "about": "CONFLICT", "before": []}
    assert has_release(review, Reason.CONFLICT)
    assert not has_release(review, Reason.TEXT_LEFT)
    assert has_release({**review, "before": ["TEXT_LEFT"]}, Reason.TEXT_LEFT)
    assert not has_release({**review, "decision": "refuse"}, Reason.CONFLICT)


def test_a_folder_that_is_filled_anew_keeps_what_came_of_it_before(tmp_path: Path, key: Path) -> None:
    for number in (1, 2):
        save(radiograph(number, f"KIM{number}"), tmp_path / "export" / "IM0001.dcm")
        assert ran(tmp_path / "export", tmp_path / "out", key).written == 1
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2
    assert len((tmp_path / "out" / "evidence.jsonl").read_text().splitlines()) == 2


def test_an_object_that_was_exported_again_takes_the_place_of_its_older_self(
    tmp_path: Path, key: Path
) -> None:
    for rows in (16, 18):
        save(radiograph(1, "KIM1", rows=rows), tmp_path / "export" / "IM0001.dcm")
        ran(tmp_path / "export", tmp_path / "out", key)
    (path,) = (tmp_path / "out").rglob("*.dcm")
    assert dcmread(path).Rows == 18


def test_names_that_a_run_needs_or_cannot_write_are_changed(tmp_path: Path, key: Path) -> None:
    folder = tmp_path / "export"
    for number, name in enumerate((b"evidence.jsonl", b"\xb1\xe8.dcm")):
        save(radiograph(number, "KIM1"), folder / os.fsdecode(name))
    assert ran(folder, tmp_path / "out", key, keep_names=True).written == 2
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"_evidence.jsonl", "evidence.jsonl", "\\xb1\\xe8.dcm"}


def test_a_vault_of_two_projects_is_refused(export: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one set of names"):
        Settings(BASIC, vault=tmp_path / "vault", project="alpha").check()


def test_a_series_that_comes_in_portions_is_not_given_out_portion_by_portion(
    tmp_path: Path, key: Path
) -> None:
    ends = []
    for number in range(3):
        path = tmp_path / "export" / f"{number}.dcm"
        save(ct_slice(number), path)
        result = run_with_faces(tmp_path / "export", tmp_path / "out", key)
        ends.append((result.written, result.quarantined))
        path.unlink()
    assert ends == [(1, {}), (0, {"FACE_LEFT": 1}), (0, {"FACE_LEFT": 1})]


def number_of_files(folder: Path) -> int:
    """Clean files in a folder at which a run is at work: folders may go meanwhile."""
    return sum(name.endswith(".dcm") for _, _, names in os.walk(folder) for name in names)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, key: Path) -> None:
    for number in range(120):
        save(radiograph(number, f"P{number % 9}", rows=256, columns=256), tmp_path / "in" / f"{number}.dcm")
    ran(tmp_path / "in", tmp_path / "whole", key)
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", RUN, *map(str, (tmp_path / "in", tmp_path / "out", key)), here]
    killed = 0
    for _ in range(3):
        child = subprocess.Popen(command, start_new_session=True)
        start, before = time.monotonic(), number_of_files(tmp_path / "out")
        while child.poll() is None and time.monotonic() - start < 60:
            if number_of_files(tmp_path / "out") >= before + 10:
                os.killpg(child.pid, signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.005)
        child.wait()
    assert killed
    final = ran(tmp_path / "in", tmp_path / "out", key)
    assert final.written + final.already == 120
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def _end_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_an_item_that_ends_its_process_is_lost_alone() -> None:
    results = dict(engines.each(_end_at_three, range(40), processes=2))
    assert isinstance(results.pop(3), engines.Lost)
    assert results == {number: number * number for number in range(40) if number != 3}


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="no engine"):
        list(engines.each(_end_at_three, range(2), engine="slurm"))


@pytest.mark.parametrize(
    ("source", "out", "private", "why"),
    [
        ("none", "out", None, "no such file"),
        ("export", "export/out", None, "inside"),
        ("export", ".", None, "inside"),
        ("export", "out", "out/private", "inside"),
        ("export", "out", "export/private", "inside"),
    ],
)
def test_folders_inside_each_other_are_refused_before_anything_is_made(
    export: Path, tmp_path: Path, source: str, out: str, private: str | None, why: str
) -> None:
    before = contents(tmp_path)
    options = ["--private", str(tmp_path / private)] if private else []
    answer = deid("run", str(tmp_path / source), str(tmp_path / out), *options)
    assert answer["error"]["code"] == "CONFIG"
    assert why in answer["error"]["message"]
    assert contents(tmp_path) == before


def deid(*arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "fedai.cli", "site", "deid", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def prepared(export: Path, out: Path, private: Path | None = None, **changes: Any) -> Job:
    """The job that the command would run: settings are `changes` of the defaults."""
    restart = bool(changes.pop("restart", False))
    wanted = Settings(**{"profile": BASIC, "pixels": False, "faces": False, "board_decision": "D", **changes})
    private, key = prepare(export, out, private, wanted, restart=restart)
    return Job(export, out, private, replace(wanted, key=key))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"key": "other.key"}, "another key"),
        ({"key": "new.key"}, "another key"),
        ({"project": "trauma"}, "no project"),
        ({"vault": "vault"}, "a key instead of a vault"),
        ({"profile": load_profile("basic+uids")}, "another profile .basic, dates: remove."),
        ({"private": "elsewhere"}, "knows nothing of"),
    ],
)
def test_an_out_of_other_names_or_another_profile_is_refused_before_anything_is_made(
    export: Path, tmp_path: Path, other: dict[str, Any], why: str
) -> None:
    create_secret(tmp_path / "other.key")
    create_vault(tmp_path / "vault", (tmp_path / "a.share", tmp_path / "b.share"))
    assert run(prepared(export, tmp_path / "out")).written == 6
    before = {name: digest for name, digest in contents(tmp_path).items() if "sqlite" not in name}
    changes = {name: tmp_path / value if isinstance(value, str) and name != "project" else value
               for name, value in other.items()}  # fmt: skip
    with pytest.raises(RefusedByPolicy, match=why) as refusal:
        prepared(export, tmp_path / "out", **changes)
    assert "another OUT" in refusal.value.hint
    after = {name: digest for name, digest in contents(tmp_path).items() if "sqlite" not in name}
    assert before == after


def test_the_command_refuses_another_project_with_its_own_exit_code(export: Path, tmp_path: Path) -> None:
    words = ("--no-pixels", "--no-faces", "--board-decision", "DRB-1", "--project")
    assert deid("run", str(export), str(tmp_path / "out"), *words, "a")["written"] == 6
    error = deid("run", str(export), str(tmp_path / "out"), *words, "b")["error"]
    assert (error["code"], "'a'" in error["message"]) == ("REFUSED", True)


@pytest.mark.parametrize("names", ["key", "vault"])
def test_a_number_with_and_without_issuer_is_two_patients_and_told(tmp_path: Path, names: str) -> None:
    create_vault(tmp_path / "vault", (tmp_path / "a.share", tmp_path / "b.share"))
    create_secret(tmp_path / "site.key")
    issued = {"IssuerOfPatientID": "North"}
    given = ({}, issued, {"patient": "LEE2"}, {"patient": "-", **issued}, {"patient": "-"})
    for number, more in enumerate(given):
        save(radiograph(number, **{"patient": "KIM1", **more}), tmp_path / "in" / f"{number}.dcm")
    where = tmp_path / ("site.key" if names == "key" else "vault")
    result = run(prepared(tmp_path / "in", tmp_path / "out", **{names: where}))
    patients = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    ((one, other),) = result.split_patients
    assert (result.written, len(patients)) == (5, 5)
    assert one != other
    assert {one, other} < patients
    (tmp_path / "in" / "1.dcm").unlink()
    assert run(prepared(tmp_path / "in", tmp_path / "new", **{names: where})).split_patients == ()


def test_a_lost_key_is_not_replaced_by_a_new_one(export: Path, tmp_path: Path) -> None:
    run(prepared(export, tmp_path / "out"))
    (tmp_path / "out.private" / "pseudonym.key").unlink()
    with pytest.raises(RefusedByPolicy, match="another key"):
        prepared(export, tmp_path / "out")
    assert not (tmp_path / "out.private" / "pseudonym.key").exists()


def test_a_restart_leaves_nothing_of_the_older_names(export: Path, tmp_path: Path) -> None:
    run(prepared(export, tmp_path / "out"))
    old = {path.name for path in (tmp_path / "out").rglob("*")}
    result = run(prepared(export, tmp_path / "out", project="trauma", restart=True), restart=True)
    assert (result.written, result.stale) == (6, ())
    assert old & {path.name for path in (tmp_path / "out").rglob("*")} == {"evidence.jsonl"}
    assert len(result.evidence.read_text().splitlines()) == 6


def test_clean_files_of_an_older_key_whose_originals_are_gone_are_told(
    export: Path, tmp_path: Path, key: Path
) -> None:
    ran(export, tmp_path / "out", key)
    other = tmp_path / "other.key"
    create_secret(other)
    old = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.dcm")}
    shutil.rmtree(export / "Kim^Minji 1")
    result = ran(export, tmp_path / "out", other)
    assert len(result.stale) == 3
    assert set(result.stale) < old
    assert verify(tmp_path / "out").ok is False
    named = {f.file for f in verify(tmp_path / "out", key_id=result.key_id).findings if "key" in f.message}
    assert named == set(result.stale)


def test_faces_stay_only_with_the_boards_number(export: Path, tmp_path: Path) -> None:
    answer = deid("run", str(export), str(tmp_path / "out"), "--no-faces")
    assert "board" in answer["error"]["message"]
    assert not (tmp_path / "out.private").exists()


def test_the_private_folder_is_the_owners_alone_and_makes_its_own_key(export: Path, tmp_path: Path) -> None:
    options = ("--no-pixels", "--no-faces", "--board-decision", "DRB-1")
    answer = deid("run", str(export), str(tmp_path / "out"), *options)
    assert answer["written"] == 6
    private = Path(str(answer["private"]))
    assert private.stat().st_mode & 0o077 == 0
    assert (private / "pseudonym.key").stat().st_mode & 0o077 == 0
    assert deid("run", str(export), str(tmp_path / "out"), *options)["key_id"] == answer["key_id"]


def test_the_review_lists_reasons_and_what_nobody_may_release(
    export: Path, tmp_path: Path, key: Path
) -> None:
    ran(export, tmp_path / "out", key)
    items = listed(tmp_path / "out.private")
    assert sorted(item["reason"] for item in items) == ["NOT_DICOM", "TRUNCATED"]
    assert all(item["words"] and item["frees"] for item in items)
    with pytest.raises(RefusedByPolicy, match="can't be released"):
        decide(tmp_path / "out.private", items[0]["item"], "release", by="Anna", reason="looks fine")
    made = decide(tmp_path / "out.private", items[0]["item"], "refuse", by="Anna", reason="not needed")
    assert made["by"] == "Anna"
    assert listed(tmp_path / "out.private")[0]["decision"] == "refuse"
    with pytest.raises(ConfigError, match="0 items"):
        decide(tmp_path / "out.private", "zzz", "refuse", by="Anna", reason="")


def test_the_review_off_a_terminal_says_what_would_free_each_item(
    export: Path, tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(export, tmp_path / "out", key)
    assert command(["site", "deid", "review", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert all(item["frees"] in told for item in listed(tmp_path / "out.private"))


def test_what_a_person_refused_stays_out_under_any_settings(tmp_path: Path, key: Path) -> None:
    data = encode(radiograph(1))
    with pytest.raises(Quarantine, match="refused"):
        clean_object(data, settings(key), {"decision": "refuse", "about": "TEXT_LEFT"})


def test_the_evidence_of_a_release_holds_no_persons_words(key: Path) -> None:
    review = {"decision": "release", "about": "TEXT_LEFT", "by": "Anna Nowak", "reason": "asked Kowalski"}
    line = clean_object(encode(radiograph(1)), settings(key), review).evidence.line()
    assert "release" in line
    assert "Nowak" not in line
    assert "Kowalski" not in line


def test_a_rotated_key_keeps_the_old_one_and_gives_other_names(tmp_path: Path) -> None:
    first = deid("key", str(tmp_path / "site.key"))
    again = deid("key", str(tmp_path / "site.key"))
    rotated = deid("key", str(tmp_path / "site.key"), "--rotate")
    assert first["key_id"] == again["key_id"] != rotated["key_id"]
    assert Path(str(rotated["old"])).name.endswith(str(first["key_id"]))


def test_a_vault_names_patients_across_runs(export: Path, tmp_path: Path) -> None:
    shares = [str(tmp_path / name) for name in ("a.share", "b.share")]
    deid("vault", "create", str(tmp_path / "vault"), "--share", shares[0], "--share", shares[1])
    options = ("--vault", str(tmp_path / "vault"), "--no-pixels", "--no-faces", "--board-decision", "D1")
    for name in ("one", "two"):
        assert deid("run", str(export), str(tmp_path / name), *options)["written"] == 6
    first, second = (
        {path.name for path in (tmp_path / name).iterdir() if path.is_dir()} for name in ("one", "two")
    )
    assert first == second
    asked = ("--share", shares[0], "--share", shares[1], "--by", "Anna", "--by", "Bo", "--reason", "recall")
    found = deid("vault", "reidentify", str(tmp_path / "vault"), sorted(first)[0], *asked)
    assert found["identifiers"][0] in ("KIM0", "KIM1")


FOREVER = """
import os, sys, time
from fedai_site.deidentify import engines
def wait(number):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece
    time.sleep(600)
if __name__ == "__main__":
    list(engines.each(wait, range(2), processes=2))
"""


def test_a_worker_that_is_still_starting_ends_too_when_its_run_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "forever.py"
    script.write_text(f"import time\nif __name__ != '__main__':\n    time.sleep(2)\n{FOREVER}")
    run_of_it = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (workers := starting(run_of_it.pid)) and time.monotonic() < end:
        time.sleep(0.005)
    run_of_it.kill()
    run_of_it.wait()
    assert workers
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def starting(run_of_it: int) -> list[int]:
    """The workers of a run, from the moment on at which they exist."""
    children = Path(f"/proc/{run_of_it}/task/{run_of_it}/children").read_text().split()
    return [int(one) for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_workers_end_when_their_run_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "forever.py"
    script.write_text(FOREVER)
    run_of_it = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert run_of_it.stdout is not None
    workers = [int(run_of_it.stdout.readline()) for _ in range(2)]
    run_of_it.kill()
    run_of_it.wait()
    end = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
