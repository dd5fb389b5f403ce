"""A site with outlines: its cohort, its answers, and a withdrawal that takes masks with it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedai_site import cache, receipts
from fedai_site.adding import add_data
from fedai_site.backup import back_up, restore
from fedai_site.client_app import Bench
from fedai_site.cohort import select
from fedai_site.erasure import withdraw
from fedai_site.home import SiteHome
from fedai_site.masks import Masks, read_labels
from fedai_site.rights import find_patients
from fedai_site.simulated import open_homes
from fedai_site.traces import files_under
from outlined_sites import NAMES, SIDE, make_outlined, outline_study

from fedai import wire
from fedai.errors import DataError
from fedai.outline_score import OutlineLinks, OutlineScore
from fedai.simulate import simulate
from fedai.tasks.classification import build_network
from fedai.weights import layout_of, pack
from fedai.wire import Task

PATIENTS = 28
STUDY = outline_study()
NETWORK = build_network(STUDY)
LAYOUT = layout_of(NETWORK)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    return make_outlined(tmp_path_factory.mktemp("site"), PATIENTS, empty=8)[0]


@pytest.fixture
def home(filled: SiteHome, tmp_path: Path) -> SiteHome:
    """A copy, times of files and all."""
    return SiteHome(shutil.copytree(filled.folder, tmp_path / "north"), filled.settings)


def task_of(kind: wire.TaskKind, **changes: Any) -> Task:
    facts: dict[str, Any] = {"run": "outlines-1", "study": STUDY.sha256}
    if kind in ("train", "train_alone", "score"):
        facts |= {"layout": LAYOUT.to_json(), "arrays": dict(pack(NETWORK, LAYOUT).arrays())}
    facts |= {"round": 1} if kind == "train" else {}
    facts |= {"model": "federated"} if kind == "score" else {}
    facts |= {"models": ("federated", "local:north")} if kind == "place" else {}
    return Task(kind, **facts | changes)


def bench_at(home: SiteHome) -> Bench:
    return Bench(home, STUDY, lambda: True)


def worked(home: SiteHome) -> Bench:
    bench = bench_at(home)
    for task in (task_of("ready"), task_of("train"), task_of("score")):
        bench.answer(task, 7)
    return bench


# ---------------------------------------------------------------- the cohort


def test_an_image_with_a_mask_is_labelled_and_one_without_is_not(home: SiteHome) -> None:
    found = select(home.folder, STUDY)
    assert found.flow == dict.fromkeys(wire.FLOW, PATIENTS)
    cases = [case for cases in found.splits.values() for case in cases]
    assert sorted(case.label for case in cases) == [0] * 8 + [1] * 20
    with Masks(home.catalogue) as masks:
        gone = cases[0]
        masks.forget([gone.id])
    again = select(home.folder, STUDY)
    assert (again.flow["labelled"], again.excluded) == (PATIENTS - 1, {"unlabelled": 1})
    assert gone.id not in {case.id for cases in again.splits.values() for case in cases}


def test_a_mask_that_does_not_speak_of_every_structure_labels_nothing(home: SiteHome) -> None:
    two = outline_study(task={"structures": ["lesion", "lung"]})
    assert select(home.folder, two).excluded == {"unlabelled": PATIENTS}


def test_masks_in_the_studys_size_lie_where_their_images_do(home: SiteHome) -> None:
    bench = bench_at(home)
    cases = bench.cases("train")
    assert cases.labels.shape == (len(cases.images), 16, 16)
    assert np.allclose(cases.spacing, np.array([0.4, 0.6]) * SIDE / 16)
    bright, outlined = cases.images[:, 0] > 140, cases.labels.any(axis=(1, 2))
    both = (bright & (cases.labels == 1)).sum(axis=(1, 2))[outlined]
    assert (both / cases.labels.sum(axis=(1, 2))[outlined]).min() > 0.6
    files = len(list((home.folder / "cache").rglob("*.npy")))
    assert np.array_equal(bench_at(home).cases("train").labels, cases.labels)
    assert len(list((home.folder / "cache").rglob("*.npy"))) == files == 2 * len(cases.images)


def test_a_mask_that_was_changed_is_not_used(home: SiteHome) -> None:
    with Masks(home.catalogue) as masks:
        for mask in masks.all().values():
            np.save(home.folder / mask.path, read_labels(home.folder / mask.path) * 0)
    with pytest.raises(DataError, match="mask isn't the one that was catalogued"):
        bench_at(home).cases("train")


# ---------------------------------------------------------------- what leaves


@pytest.mark.parametrize("kind", ["ready", "train", "train_alone", "score"])
def test_each_answer_is_exactly_what_its_task_asks_for(kind: wire.TaskKind, home: SiteHome) -> None:
    task = task_of(kind)
    wire.check(bench_at(home).answer(task, 7), task, STUDY, LAYOUT)


def test_models_that_were_scored_can_be_linked(home: SiteHome) -> None:
    bench = bench_at(home)
    replies = [bench.answer(task_of("score", model=name), 7) for name in ("federated", "local:north")]
    task = task_of("place")
    reply = bench_at(home).answer(task, 7)
    wire.check(reply, task, STUDY, LAYOUT)
    score, links = OutlineScore.from_arrays(replies[0].arrays), OutlineLinks.from_arrays(reply.arrays)
    assert links.models == 2
    assert np.allclose(links.products[0, :, 0, 0], score.squares[0, :, 0])
    assert replies[0].metrics["patients"] == score.found.sum()


def test_a_structure_that_too_few_test_patients_have_or_lack_is_not_told_of(tmp_path: Path) -> None:
    home, _ = make_outlined(tmp_path, 16, empty=2)
    reply = bench_at(home).answer(task_of("ready"), 7)
    assert reply.arrays["split_cases"][:, 0].tolist()[1:] == [0, 0], "validation and test"
    assert sum(case.label == 0 for case in select(home.folder, STUDY).splits["train"]) > 0
    told = bench_at(home).answer(task_of("score"), 7)
    assert OutlineScore.from_arrays(told.arrays).found[0, :2].sum() == 0, "no case without a lesion"


def test_homes_are_simulated(home: SiteHome, tmp_path: Path) -> None:
    with open_homes([home.folder], STUDY, "simulation") as homes:
        done = simulate(STUDY, homes, tmp_path / "kept")
    assert done.rounds[-1].train_loss < done.rounds[0].train_loss
    assert done.scores["north"].shape == (1,)


# ---------------------------------------------------------------- withdrawal, backup


def outlined_patient(home: SiteHome, split: str) -> str:
    cases = select(home.folder, STUDY).splits[split]
    return next(case.patient for case in cases if case.label)


def contents_of(home: SiteHome, patient: str) -> list[bytes]:
    """The patient's masks, whole and as cached, from the first outlined pixel on; looked for apart from the
    code that is tested."""
    paths = [*(home.folder / "masks" / patient).rglob("*.npy")]
    paths += [path for path in (home.folder / "cache").rglob("*.npy") if path.parent.name == patient]
    found = [np.load(path) for path in paths]
    return [array.tobytes() for array in found]


def holding(home: SiteHome, contents: list[bytes]) -> list[Path]:
    return [path for path in files_under(home.folder) if any(one in path.read_bytes() for one in contents)]


def test_nothing_of_a_patients_masks_is_left(home: SiteHome) -> None:
    worked(home)
    patient = outlined_patient(home, "train")
    contents = contents_of(home, patient)
    assert len(contents) == 3, "the mask, the cached image, the cached mask"
    assert len(holding(home, contents)) >= 3
    with Masks(home.catalogue) as masks:
        (mask,) = masks.of_patients([patient])
    (receipt,) = withdraw(home, [find_patients(home, [patient], None)[0]])
    facts = receipts.verify(receipt, home.folder / "keys" / "receipts.pub")
    assert (facts["deleted"]["masks"], facts["deleted"]["cached_arrays"]) == (1, 2)
    assert facts["without_recognisable_content"] == 0
    assert holding(home, contents) == []
    words = [mask.image, mask.sha256, *mask.sources]
    assert [
        path for path in files_under(home.folder) for word in words if word.encode() in path.read_bytes()
    ] == []
    assert not (home.folder / "masks" / patient).exists()
    assert patient not in {
        case.patient for cases in select(home.folder, STUDY).splits.values() for case in cases
    }


@pytest.mark.parametrize("which", ["mask", "cached"])
def test_a_copy_of_a_mask_under_any_name_keeps_the_receipt_back(home: SiteHome, which: str) -> None:
    worked(home)
    patient = outlined_patient(home, "train")
    cached = [path for path in (home.folder / "cache").rglob("*.npy") if path.parent.name == patient]
    (small,) = [np.load(path) for path in cached if np.load(path).max() == 1]
    (whole,) = [np.load(path) for path in (home.folder / "masks" / patient).iterdir()]
    copy = whole if which == "mask" else small
    (home.folder / "runs" / "notes.bin").write_bytes(b"\7" * 77 + copy.tobytes() + b"more")
    with pytest.raises(DataError, match="1 files still hold data of the patient") as caught:
        withdraw(home, [find_patients(home, [patient], None)[0]])
    assert caught.value.where == "runs/notes.bin"


def test_a_mask_is_out_of_use_from_the_next_batch_on(home: SiteHome) -> None:
    bench = worked(home)
    patient = outlined_patient(home, "train")
    cases = len(bench.cases("train").labels)
    withdraw(home, [find_patients(home, [patient], None)[0]])
    assert bench.answer(task_of("train"), 8).metrics["cases"] == cases - 1


def test_outlines_of_a_patient_who_withdrew_are_refused(filled: SiteHome, home: SiteHome) -> None:
    export = filled.folder.parent / "north-export"
    patient = outlined_patient(home, "train")
    withdraw(home, [find_patients(home, [patient], None)[0]])
    added = add_data(home.folder, export, None, structures=NAMES)
    assert (added.quarantined, added.masks, added.masked) == ({"WITHDRAWN": 2}, PATIENTS - 1, PATIENTS - 1)
    with sqlite3.connect(home.folder / "deid" / "state.sqlite") as database:
        kept = database.execute("SELECT path, detail FROM sources WHERE state = 'WITHDRAWN'").fetchall()
    assert all("Invented" not in str(row) for row in kept)


def test_after_a_restore_masks_are_made_anew_from_their_originals(
    filled: SiteHome, home: SiteHome, tmp_path: Path
) -> None:
    before = [case.content for case in select(home.folder, STUDY).splits["test"]]
    back_up(home, tmp_path / "backup.tar")
    again = restore(tmp_path / "backup.tar", tmp_path / "restored")
    with pytest.raises(DataError, match="missing"):
        cache.load_masks(
            again.folder, select(again.folder, STUDY).splits["test"], STUDY.preprocessing, ["lesion"]
        )
    added = add_data(again.folder, filled.folder.parent / "north-export", None, structures=NAMES)
    assert (added.written, added.masks, added.masked) == (PATIENTS, PATIENTS, PATIENTS)
    assert [case.content for case in select(again.folder, STUDY).splits["test"]] == before
