"""A withdrawal: out of use, deleted, searched for by content, and put down in a signed receipt."""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import encode, radiograph, save
from fedai_site import cache, inbox, influence, receipts
from fedai_site.adding import add_data, add_inbox
from fedai_site.catalogue import Catalogue
from fedai_site.client_app import Bench
from fedai_site.cohort import Case, select
from fedai_site.deidentify.pseudonyms import Pseudonyms, load_secret
from fedai_site.erasure import withdraw
from fedai_site.home import SiteHome
from fedai_site.replies import folder_of, keep, place
from fedai_site.rights import find_patients, import_consents
from fedai_site.traces import files_under
from homes import add_patients, make_home
from replies_to import STUDY, task_of

from fedai.cli.app import run
from fedai.errors import ConfigError, DataError
from fedai.ledger import Ledger

PATIENTS = 28


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    return make_home(tmp_path_factory.mktemp("site"), patients=PATIENTS)


@pytest.fixture
def home(filled: SiteHome, tmp_path: Path) -> SiteHome:
    """A copy, times of files and all."""
    return SiteHome(shutil.copytree(filled.folder, tmp_path / "north"), filled.settings)


def cases_of(home: SiteHome, split: str) -> tuple[Case, ...]:
    return select(home.folder, STUDY).splits[split]


def worked(home: SiteHome) -> Bench:
    """A run that trained and scored, as the agent keeps it."""
    bench = Bench(home, STUDY, lambda: True)
    for task in (task_of("ready"), task_of("train"), task_of("score", model="federated")):
        keep(place(home.runs, task, 7), bench.answer(task, 7))
    return bench


def pair(home: SiteHome, patient: str) -> tuple[str, str]:
    return find_patients(home, [patient], None)[0]


def contents_of(home: SiteHome, patient: str) -> list[bytes]:
    """The patient's clean files, pixels and cached arrays, to look for without the code that is tested."""
    found = [path.read_bytes() for path in (home.folder / "clean" / patient).rglob("*.dcm")]
    arrays = [path for path in (home.folder / "cache").rglob("*.npy") if path.parent.name == patient]
    found += [np.load(path).tobytes() for path in arrays]
    with sqlite3.connect(home.catalogue) as database:
        rows = database.execute("SELECT id, sha256 FROM objects WHERE patient = ?", (patient,)).fetchall()
    return found + [text.encode() for row in rows for text in row]


def holding(home: SiteHome, contents: list[bytes]) -> list[Path]:
    return [path for path in files_under(home.folder) if any(one in path.read_bytes() for one in contents)]


def test_nothing_of_the_patient_is_left_under_any_name(home: SiteHome) -> None:
    worked(home)
    patient = cases_of(home, "train")[0].patient
    contents = contents_of(home, patient)
    assert len(contents) == 2 + 2 + 4
    assert len(holding(home, contents)) >= 2 + 2 + 3  # files, arrays, both databases, evidence.jsonl
    (receipt,) = withdraw(home, [pair(home, patient)])
    assert holding(home, contents) == []
    facts = receipts.verify(receipt, home.folder / "keys" / "receipts.pub")
    assert facts["deleted"] == {
        "clean_files": 2, "waiting_files_and_pictures": 0, "masks": 0, "cached_arrays": 2, "records": 2,
        "scores_and_answers_of_runs": 3,
    }  # fmt: skip
    assert facts["searched"]["files"] == len(list(files_under(home.folder))) - 3  # receipt and keys come last
    assert facts["searched"]["left"] == facts["same_content_in_files_of_others"] == 0
    assert facts["used_in"] == ["small-1 train 1"]


def test_scores_go_with_a_patient_whose_cases_were_scored(home: SiteHome) -> None:
    worked(home)
    scores = folder_of(home.runs, task_of("score"), 7) / "scores-federated.npy"
    trained, tested = cases_of(home, "train")[0].patient, cases_of(home, "test")[0].patient
    withdraw(home, [pair(home, trained)])
    assert scores.exists()
    rows = np.load(scores).tobytes()
    withdraw(home, [pair(home, tested)])
    assert not scores.exists()
    assert holding(home, [rows]) == []


def test_scores_of_a_run_without_a_note_of_its_cases_go_too(home: SiteHome) -> None:
    worked(home)
    with sqlite3.connect(home.catalogue) as database:
        database.execute("DELETE FROM uses")
    withdraw(home, [pair(home, cases_of(home, "train")[0].patient)])
    assert not list(home.runs.rglob("scores-*"))
    assert not list(home.runs.rglob("replies/*"))


def test_the_others_stay_as_they_were(home: SiteHome) -> None:
    worked(home)
    before = select(home.folder, STUDY)
    patient = cases_of(home, "validation")[0].patient
    withdraw(home, [pair(home, patient)])
    after = select(home.folder, STUDY)
    for split, cases in before.splits.items():
        assert after.splits[split] == tuple(case for case in cases if case.patient != patient)
    assert after.excluded == {"withdrawn": 2}
    assert after.flow["found"] == before.flow["found"]
    assert Bench(home, STUDY, lambda: True).answer(task_of("train"), 8).metrics["cases"]


def test_equal_answers_of_a_run_that_did_not_use_the_patient_keep_nothing_back(home: SiteHome) -> None:
    """A study that is done again without its judgement trains on the same cases, to the same bit."""
    bench, tested = worked(home), cases_of(home, "test")[0].patient
    again = task_of("train", run="again-1")
    keep(place(home.runs, again, 8), bench.answer(again, 8))
    kept = next(home.runs.glob("again-1/*/replies/*"))
    (trained,) = home.runs.glob(f"{task_of('train').run}/*/replies/train-*")
    kept.write_bytes(trained.read_bytes())  # all but the ledger's head in it is the same anyhow
    (receipt,) = withdraw(home, [pair(home, tested)])
    assert kept.exists()
    assert not trained.exists()
    assert receipts.verify(receipt, receipts.key_beside(receipt))["same_content_in_files_of_others"] >= 1


def test_a_score_of_the_patient_in_another_runs_answers_keeps_the_receipt_back(home: SiteHome) -> None:
    bench, tested = worked(home), cases_of(home, "test")[0]
    again = task_of("train", run="again-1")
    keep(place(home.runs, again, 8), bench.answer(again, 8))
    kept = next(home.runs.glob("again-1/*/replies/*"))
    kept.write_bytes(kept.read_bytes() + tested.path.read_bytes())
    with pytest.raises(DataError, match="1 files still hold"):
        withdraw(home, [pair(home, tested.patient)])


def test_a_receipt_counts_what_was_deleted_in_every_try(home: SiteHome, tmp_path: Path) -> None:
    worked(home)
    patient = cases_of(home, "test")[0].patient
    copied, once = home.folder / "copy.bin", SiteHome(tmp_path / "once", home.settings)
    shutil.copytree(home.folder, once.folder)
    told = [receipts.verify(r, receipts.key_beside(r)) for r in withdraw(once, [pair(once, patient)])]
    copied.write_bytes(next((home.folder / "clean" / patient).rglob("*.dcm")).read_bytes())
    with pytest.raises(DataError, match="still hold data"):
        withdraw(home, [pair(home, patient)])
    copied.unlink()
    (receipt,) = withdraw(home, [pair(home, patient)])
    deleted = receipts.verify(receipt, receipts.key_beside(receipt))["deleted"]
    assert deleted == told[0]["deleted"]
    assert deleted["clean_files"] > 0
    assert deleted["scores_and_answers_of_runs"] > 0


def test_a_copy_under_any_name_keeps_the_receipt_back(home: SiteHome) -> None:
    worked(home)
    patient = cases_of(home, "train")[0].patient
    array = next(path for path in (home.folder / "cache").rglob("*.npy") if path.parent.name == patient)
    (home.folder / "runs" / "notes.bin").write_bytes(b"\0" * 77 + np.load(array).tobytes() + b"more")
    with pytest.raises(DataError, match="1 files still hold data of the patient") as caught:
        withdraw(home, [pair(home, patient)])
    assert caught.value.where == "runs/notes.bin"
    assert not list(home.receipts.glob("*"))
    assert patient not in {case.patient for case in cases_of(home, "train")}
    with pytest.raises(DataError, match="1 files still hold data of the patient"):
        withdraw(home, [pair(home, patient)])  # all else is gone, and what to look for is still known
    (home.folder / "runs" / "notes.bin").unlink()
    assert withdraw(home, [pair(home, patient)])[0].exists()
    assert list((home.folder / "unfinished").iterdir()) == []


def test_a_second_withdrawal_that_finds_nothing_more_gives_the_receipt_of_the_first(
    home: SiteHome, capsys: Any
) -> None:
    patient = cases_of(home, "train")[0].patient
    (first,) = withdraw(home, [pair(home, patient)])
    before = first.read_bytes()
    assert run(["site", "consent", "withdraw", str(home.folder), patient]) == 0
    said = capsys.readouterr().out
    assert f"{patient} had withdrawn" in said
    assert "nothing more of them was found" in said
    assert str(first) in said
    assert list(home.receipts.iterdir()) == [first]
    assert first.read_bytes() == before
    assert json.loads(before)["deleted"]["clean_files"] == 2


def test_a_second_withdrawal_that_finds_more_gives_a_receipt_of_its_own_and_leaves_the_first(
    home: SiteHome, tmp_path: Path
) -> None:
    folder = inbox.open_inbox(home.folder)
    (tmp_path / "who.csv").write_text("PatientID\nP90\n")
    who = find_patients(home, [], tmp_path / "who.csv")
    (first,) = withdraw(home, who)
    before = first.read_bytes()
    inbox.store(folder, folder / inbox.PARTS / "part", iter([encode(radiograph(90, "P90"))]))
    (second,) = withdraw(home, who)
    assert second != first
    assert first.read_bytes() == before
    assert json.loads(second.read_text())["deleted"]["waiting_files_and_pictures"] == 1


@pytest.mark.parametrize("by", ["PatientID", "pseudonym"])
def test_what_add_data_wrote_before_it_was_killed_is_found(
    home: SiteHome, capsys: Any, tmp_path: Path, by: str
) -> None:
    """The catalogue is filled at the end; until then only the cleaning's own state knows of the files."""
    patient = cases_of(home, "train")[0].patient
    folder, names = home.folder / "clean" / patient, Pseudonyms(load_secret(home.pseudonym_key))
    with Catalogue(home.catalogue) as catalogue:
        key = catalogue.of_patients([patient])[0].patient_key
        catalogue.replace([], [])
    orphan = folder / "study" / "series" / "unnoted.dcm"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(next(folder.rglob("*.dcm")).read_bytes())
    (archives,) = (name for n in range(PATIENTS) if names.label_key("PatientID", name := f"P{n}") == key)
    (tmp_path / "who.csv").write_text(f"{by}\n{archives if by == 'PatientID' else patient}\n")
    words = ["site", "consent", "withdraw", str(home.folder), "--from", str(tmp_path / "who.csv"), "--json"]
    assert run(words) == 0
    (receipt,) = json.loads(capsys.readouterr().out)["receipts"]
    assert receipt["deleted"]["clean_files"] == 2
    assert not list(folder.rglob("*.dcm"))
    assert len(select(home.folder, STUDY).splits["train"]) > 0


def test_an_image_that_another_patient_has_too_is_used_of_nobody_after_a_withdrawal(
    home: SiteHome, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(6).integers(0, 4096, (64, 64), np.uint16).tobytes()
    for number, name in enumerate(("TWIN-A", "TWIN-B")):
        image = radiograph(900 + number, name, rows=64, columns=64, PixelData=pixels)
        save(image, tmp_path / "twins" / f"{number}.dcm")
    save(radiograph(950, "TWIN-C", rows=64, columns=64, PixelData=pixels), tmp_path / "later" / "1.dcm")
    table = tmp_path / "twins.csv"
    table.write_text("PatientID,label\nTWIN-A,clear\nTWIN-B,clear\nTWIN-C,clear\n")
    before = select(home.folder, STUDY).flow["used"]
    add_data(home.folder, tmp_path / "twins", table)
    assert select(home.folder, STUDY).excluded["same_image"] == 2
    (tmp_path / "who.csv").write_text("PatientID\nTWIN-A")
    withdraw(home, find_patients(home, [], tmp_path / "who.csv"))
    add_data(home.folder, tmp_path / "later", table)
    after = select(home.folder, STUDY)
    assert (after.flow["used"], after.excluded["same_image"]) == (before, 2)


def test_the_same_image_under_another_identity_is_told_and_keeps_nothing_back(
    home: SiteHome, tmp_path: Path
) -> None:
    for number, name in enumerate(("TWIN-A", "TWIN-B")):
        pixels = np.random.default_rng(5).integers(0, 4096, (64, 64), np.uint16).tobytes()
        image = radiograph(800 + number, name, rows=64, columns=64, PixelData=pixels)
        save(image, tmp_path / "twins" / f"{number}.dcm")
    add_data(home.folder, tmp_path / "twins", None)
    (tmp_path / "who.csv").write_text("PatientID\nTWIN-A")
    (receipt,) = withdraw(home, find_patients(home, [], tmp_path / "who.csv"))
    assert json.loads(receipt.read_text())["same_content_in_files_of_others"] == 1


def test_originals_stay_refused_until_a_new_consent(home: SiteHome, tmp_path: Path) -> None:
    (tmp_path / "who.csv").write_text("PatientID\nP3\n")
    before = select(home.folder, STUDY).splits
    ((patient, key),) = find_patients(home, [], tmp_path / "who.csv")
    withdraw(home, [(patient, key)])
    for folder in ("again", "again", "elsewhere"):
        add_patients(home, tmp_path / folder, range(3, 4))
        found = select(home.folder, STUDY)
        assert not (home.folder / "clean" / patient).exists()
        assert patient not in {case.patient for cases in found.splits.values() for case in cases}
    assert found.excluded["withdrawn"] == 6  # two images deleted, and refused from two folders, each once
    consent = tmp_path / "consent.csv"
    consent.write_text("PatientID,basis,scope\nP3,consent,GRU\n")
    with pytest.raises(ConfigError, match=r"consent.csv:2: this patient withdrew"):
        import_consents(home, consent)
    consent.write_text("PatientID,basis,scope\nP3,opt-out,GRU\n")
    with pytest.raises(ConfigError, match=r"consent.csv:2: only a new consent ends a withdrawal"):
        import_consents(home, consent, renew=True)
    consent.write_text("PatientID,basis,scope\nP3,consent,GRU\n")
    assert import_consents(home, consent, renew=True).renewed == 1
    add_patients(home, tmp_path / "again", range(3, 4))
    assert select(home.folder, STUDY).splits == before


def test_who_withdraws_before_an_image_came_is_refused_when_it_comes(home: SiteHome, tmp_path: Path) -> None:
    (tmp_path / "who.csv").write_text("PatientID\nP60\n")
    (receipt,) = withdraw(home, find_patients(home, [], tmp_path / "who.csv"))
    assert receipts.verify(receipt, receipts.key_beside(receipt))["deleted"]["clean_files"] == 0
    add_patients(home, tmp_path / "later", range(60, 62))
    found = select(home.folder, STUDY)
    assert (found.excluded["withdrawn"], found.flow["deidentified"]) == (2, 2 * PATIENTS + 2)


def test_no_database_remembers_where_the_originals_lay(home: SiteHome, tmp_path: Path) -> None:
    save(radiograph(70, "P70"), tmp_path / "late" / "Hong^Gildong 70.dcm")
    save(radiograph(71, "P71"), tmp_path / "late" / "Kim^Minsu 71.dcm")
    add_data(home.folder, tmp_path / "late", None)
    databases = (home.catalogue, home.folder / "deid" / "state.sqlite")
    (tmp_path / "who.csv").write_text("PatientID\nP70\n")
    who = find_patients(home, [], tmp_path / "who.csv")
    assert all(b"Hong^Gildong 70" in path.read_bytes() for path in databases)
    withdraw(home, who)
    assert not any(b"Hong^Gildong 70" in path.read_bytes() for path in databases)
    assert all(b"Kim^Minsu 71" in path.read_bytes() for path in databases)
    add_data(home.folder, tmp_path / "late", None)
    withdraw(home, who)
    assert holding(home, [b"Hong^Gildong 70"]) == []


def test_a_quarantined_original_is_forgotten_with_its_picture(home: SiteHome, tmp_path: Path) -> None:
    """Pictures for the reviewer show the patient; whose they are is asked of the original."""
    for number, name in ((80, "P80"), (81, "P81")):
        save(radiograph(number, name, SOPClassUID="1.2.3.4"), tmp_path / "odd" / f"{name}.dcm")
    add_data(home.folder, tmp_path / "odd", None)
    private = home.folder / "deid"
    (private / "pictures").mkdir()
    with sqlite3.connect(private / "state.sqlite") as database:
        rows = database.execute("SELECT path, input_sha256 FROM sources WHERE state = 'UNKNOWN_SOP_CLASS'")
        for path, digest in rows.fetchall():
            (private / "pictures" / f"{digest}.png").write_bytes(
                np.random.default_rng(int(digest[:8], 16)).bytes(900)
            )
            change = "UPDATE sources SET picture = ? WHERE path = ?"
            database.execute(change, (f"pictures/{digest}.png", path))
    (tmp_path / "odd" / "P81.dcm").unlink()
    (tmp_path / "who.csv").write_text("PatientID\nP80\n")
    (receipt,) = withdraw(home, find_patients(home, [], tmp_path / "who.csv"))
    facts = json.loads(receipt.read_text())
    assert facts["deleted"]["waiting_files_and_pictures"] == 1
    assert facts["pictures_of_unknown_patients"] == 1
    assert len(list((private / "pictures").iterdir())) == 1


def test_originals_in_the_inbox_go_too(home: SiteHome, tmp_path: Path) -> None:
    """Those that wait, and those in quarantine; of what can't be read nobody can tell whose it is."""
    folder = inbox.open_inbox(home.folder)

    def put(data: bytes) -> Path:
        return inbox.store(folder, folder / inbox.PARTS / "part", iter([data]))

    put(encode(radiograph(90, "P90", SOPClassUID="1.2.3.4")))
    broken = put(encode(radiograph(93, "P90"))[:-50])
    add_inbox(home.folder, None)
    put(encode(radiograph(91, "P90")))
    other = put(encode(radiograph(92, "P92")))
    assert len(list(inbox.waiting(folder))) == 4
    (tmp_path / "who.csv").write_text("PatientID\nP90\n")
    (receipt,) = withdraw(home, find_patients(home, [], tmp_path / "who.csv"))
    told = receipts.verify(receipt, receipts.key_beside(receipt))
    assert (told["deleted"]["waiting_files_and_pictures"], told["originals_of_unknown_patients"]) == (2, 1)
    assert set(inbox.waiting(folder)) == {broken, other}
    put(encode(radiograph(91, "P90")))
    assert add_inbox(home.folder, None).quarantined == {"TRUNCATED": 1, "WITHDRAWN": 1}
    assert set(inbox.waiting(folder)) == {broken}


def test_the_log_loses_the_names_and_nothing_else(home: SiteHome) -> None:
    patient = cases_of(home, "train")[0].patient
    path = next((home.folder / "clean" / patient).rglob("*.dcm"))
    home.log.write_text(f"before\nclean/{path.relative_to(home.folder)}: is missing\nafter\n")
    size = home.log.stat().st_size
    withdraw(home, [pair(home, patient)])
    text = home.log.read_text()
    assert patient not in text
    assert path.stem not in text
    assert text.startswith("before\nclean/")
    assert text.endswith(": is missing\nafter\n")
    assert len(text) == size


def test_while_data_are_added_a_withdrawal_is_in_force_and_is_completed_later(home: SiteHome) -> None:
    patient = cases_of(home, "train")[0].patient
    with (home.folder / "deid" / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="withdrawn and out of use from now on, but not deleted yet"):
            withdraw(home, [pair(home, patient)])
    found = select(home.folder, STUDY)
    assert patient not in {case.patient for cases in found.splits.values() for case in cases}
    assert found.excluded == {"withdrawn": 2}
    (receipt,) = withdraw(home, [pair(home, patient)])
    assert receipt.exists()
    assert not (home.folder / "clean" / patient).exists()


def test_a_receipt_that_was_changed_or_is_anothers_does_not_verify(
    home: SiteHome, tmp_path: Path, capsys: Any
) -> None:
    patient = cases_of(home, "train")[0].patient
    (receipt,) = withdraw(home, [pair(home, patient)])
    assert run(["site", "consent", "verify", str(receipt)]) == 0
    assert "the signature holds" in capsys.readouterr().out
    raw = receipt.read_bytes()
    copy = tmp_path / "copy.json"
    key = ["--key", str(home.folder / "keys" / "receipts.pub")]
    copy.write_bytes(raw)
    assert run(["site", "consent", "verify", str(copy), *key]) == 0
    assert run(["site", "consent", "verify", str(copy)]) == 2
    for at in range(0, len(raw), 3):
        copy.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(DataError, match="not a true receipt"):
            receipts.verify(copy, home.folder / "keys" / "receipts.pub")
    other = make_home(tmp_path / "elsewhere", patients=3)
    receipts.sign(other.folder / "keys", {})
    copy.write_bytes(raw)
    assert (
        run(["site", "consent", "verify", str(copy), "--key", str(other.folder / "keys/receipts.pub")]) == 3
    )
    assert (home.folder / "keys" / "receipts.key").stat().st_mode & 0o077 == 0
    assert b"PRIVATE" not in raw


def test_the_commands_withdraw_and_tell_the_influence(home: SiteHome, tmp_path: Path, capsys: Any) -> None:
    worked(home)
    patient = cases_of(home, "train")[0].patient
    assert run(["site", "consent", "withdraw", str(home.folder), patient]) == 0
    assert "nothing left" in capsys.readouterr().out
    assert run(["site", "consent", "influence", str(home.folder), patient, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(use["run"], use["task"], use["round"], use["cases"], use["came"]) for use in told["uses"]] == [
        ("small-1", "train", 1, {"train": 2}, "answered")
    ]
    assert told["models"] == influence.NOT_UNLEARNED
    assert run(["site", "consent", "influence", str(home.folder), patient]) == 0
    assert "past models are not unlearned" in capsys.readouterr().out
    assert run(["site", "consent", "list", str(home.folder)]) == 0
    assert f"{patient}  0" in capsys.readouterr().out
    assert Ledger(home.ledger).last() is None


def test_an_earlier_releases_cache_goes_as_a_whole(home: SiteHome) -> None:
    worked(home)
    patient = cases_of(home, "train")[0].patient
    old = home.folder / "cache" / "v1-16x16-1-99" / "abc.npy"
    old.parent.mkdir()
    array = next(path for path in (home.folder / "cache").rglob("*.npy") if path.parent.name == patient)
    shutil.copy(array, old)
    withdraw(home, [pair(home, patient)])
    assert not old.exists()
    assert len(list((home.folder / "cache").rglob("*.npy"))) > 10


def test_a_reader_that_is_late_can_not_cache_what_was_deleted(home: SiteHome) -> None:
    cases = cases_of(home, "train")
    patient = cases[0].patient
    pixels = cache._pixels

    def deleted_meanwhile(case: Case) -> Any:
        read = pixels(case)
        if case.patient == patient:
            withdraw(home, [pair(home, patient)])
        return read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_pixels", deleted_meanwhile)
        with pytest.raises(FileNotFoundError):
            cache.load(home.folder, cases, STUDY.preprocessing)
    assert not [path for path in (home.folder / "cache").rglob("*.npy") if path.parent.name == patient]


def test_a_receipt_that_is_not_there_is_told_as_that(tmp_path: Path, capsys: Any) -> None:
    assert run(["site", "consent", "verify", str(tmp_path / "nosuch")]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path / 'nosuch'}: there is no such file\n  next: "
    )
