from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dicom_files import radiograph, save
from fedai_site import intake
from fedai_site.adding import add_data
from fedai_site.cohort import Cohort, assign, select
from fedai_site.deidentify import create_secret
from hypothesis import given
from hypothesis import strategies as st

from fedai.errors import DataError
from fedai.study import Study

FRACTIONS = {"train": 0.5, "validation": 0.25, "test": 0.25}


def study(**changes: Any) -> Any:
    """The few fields that a cohort depends on."""
    values = {"classes": ("normal", "nodule"), "modality": (), "name": "cxr", "seed": 1} | changes
    fields = SimpleNamespace(
        name=values["name"],
        sites=("north",),
        data_use=values.get("data_use"),
        task=SimpleNamespace(classes=values["classes"]),
        cohort=SimpleNamespace(modality=values["modality"], minimum_patients=1),
        split=SimpleNamespace(validation=0.25, test=0.25, seed=values["seed"]),
    )
    fields.split_plan = Study.split_plan.fget(fields)  # type: ignore[attr-defined]
    return fields


def add(home: Path, folder: Path, patients: range) -> None:
    """Two images a patient; every fourth patient has a nodule, every tenth no label, P7 another label."""
    lines = ["PatientID,label"]
    for patient in patients:
        for number in (2 * patient, 2 * patient + 1):
            modality = "CT" if patient == 9 else "CR"
            save(
                radiograph(number, f"P{patient}", rows=2, columns=2, Modality=modality),
                folder / f"{number}.dcm",
            )
        label = "other" if patient == 7 else "nodule" if patient % 4 == 0 else "normal"
        lines += [f"P{patient},{label}"] if patient % 10 else []
    table = folder.with_suffix(".csv")
    table.write_text("\n".join(lines))
    add_data(home, folder, table)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    create_secret(home / "keys" / "pseudonym.key")
    add(home, tmp_path / "first", range(40))
    (tmp_path / "first" / "junk").write_text("junk")
    add_data(home, tmp_path / "first", None)
    return home


def patients(cohort: Cohort) -> dict[str, set[str]]:
    return {name: {case.patient for case in cases} for name, cases in cohort.splits.items()}


def test_every_image_is_accounted_for(home: Path) -> None:
    cohort = select(home, study(modality=("CR", "DX")))
    assert cohort.flow == {
        "found": 81, "deidentified": 80, "consented": 80, "labelled": 72, "eligible": 68, "used": 68
    }  # fmt: skip
    assert cohort.excluded == {"quarantined": 1, "unlabelled": 8, "label_not_in_study": 2, "modality": 2}
    assert cohort.quarantined == {"NOT_DICOM": 1}
    assert sum(len(cases) for cases in cohort.splits.values()) == 68


def test_no_patient_is_in_two_splits_and_each_class_is_in_all(home: Path) -> None:
    cohort = select(home, study())
    split = patients(cohort)
    assert len(set.union(*split.values())) == sum(map(len, split.values()))
    assert {name: len(members) for name, members in split.items()} == {
        "train": 17,
        "validation": 9,
        "test": 9,
    }
    assert all({case.label for case in cases} == {0, 1} for cases in cohort.splits.values())


def test_a_patient_keeps_its_split_when_data_are_added(home: Path, tmp_path: Path) -> None:
    before = patients(select(home, study()))
    add(home, tmp_path / "second", range(40, 80))
    after = patients(select(home, study()))
    assert all(before[name] <= after[name] for name in before)
    assert sum(map(len, after.values())) > sum(map(len, before.values()))


def test_the_seed_and_the_name_make_the_split(home: Path) -> None:
    assert patients(select(home, study())) == patients(select(home, study()))
    assert patients(select(home, study())) != patients(select(home, study(seed=2)))


def test_selecting_opens_no_image(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_bytes", lambda path: pytest.fail(f"opened {path}"))
    for path in home.rglob("*.dcm"):
        path.unlink()
    assert select(home, study()).flow["used"] == 70


def test_a_label_key_that_two_patients_answer_to_labels_neither(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "issuers"
    for number, issuer in ((200, "North"), (201, "South")):
        save(
            radiograph(number, "P100", rows=2, columns=2, IssuerOfPatientID=issuer), folder / f"{number}.dcm"
        )
    table = tmp_path / "more.csv"
    table.write_text("PatientID,label\nP100,nodule\n")
    add_data(home, folder, table)
    assert select(home, study()).excluded["ambiguous_key"] == 2


def test_the_most_specific_label_wins(home: Path, tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    table.write_text("SOPInstanceUID,label\n1.2.3.3,nodule\n")
    before = [case for cases in select(home, study()).splits.values() for case in cases]
    add_data(home, tmp_path / "first", table)
    after = [case for cases in select(home, study()).splits.values() for case in cases]
    assert sum(case.label for case in after) == sum(case.label for case in before) + 1


names = st.sets(st.text("abcdef", min_size=1, max_size=6), max_size=60)


@given(names, st.integers(0, 99))
def test_splits_come_out_in_the_asked_proportions(everyone: set[str], seed: int) -> None:
    assigned = assign({name: len(name) % 2 for name in everyone}, {}, FRACTIONS, seed)
    assert set(assigned) == everyone
    for name, fraction in FRACTIONS.items():
        for stratum in (0, 1):
            members = [patient for patient in everyone if len(patient) % 2 == stratum]
            got = sum(assigned[patient] == name for patient in members)
            assert abs(got - fraction * len(members)) < 1


@pytest.mark.parametrize(
    "evidence", ["", "[]", "{}", '{"key_id": "k", "profile": "basic", "output_sha256": "0"}']
)
def test_an_object_without_evidence_that_fits_its_bytes_is_never_trained_on(
    home: Path, evidence: str
) -> None:
    with sqlite3.connect(home / "catalogue.sqlite") as database:
        database.execute(
            "UPDATE objects SET evidence = ? WHERE id = (SELECT min(id) FROM objects)", (evidence,)
        )
    with pytest.raises(DataError, match="1 clean files have no evidence"):
        select(home, study())
