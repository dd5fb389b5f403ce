from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dicom_files import radiograph, save
from fedai_site import intake
from fedai_site.adding import add_data
from fedai_site.catalogue import Catalogue, Record
from fedai_site.cohort import Cohort, assign, select
from fedai_site.deidentify import create_secret
from fedai_site.traits import Traits
from hypothesis import given
from hypothesis import strategies as st

from fedai.cohort_rules import CohortRules
from fedai.errors import ConfigError, DataError
from fedai.study import Study

FRACTIONS = {"train": 0.5, "validation": 0.25, "test": 0.25}


def study(**changes: Any) -> Any:
    """The few fields that a cohort depends on."""
    values = {"classes": ("normal", "nodule"), "name": "cxr", "seed": 1} | changes
    fields = SimpleNamespace(
        name=values["name"],
        sites=("north",),
        data_use=values.get("data_use"),
        task=SimpleNamespace(classes=values["classes"]),
        cohort=CohortRules.model_validate({"minimum_patients": 1, **values.get("cohort", {})}),
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
    cohort = select(home, study(cohort={"modality": ("CR", "DX")}))
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


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Twelve patients of several ages, makers and years; the last tells nothing of that."""
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    create_secret(home / "keys" / "pseudonym.key")
    for number in range(12):
        more: dict[str, Any] = {
            "PatientAge": f"0{20 + 5 * number}Y", "Manufacturer": ("GE", "Philips")[number % 2],
            "BodyPartExamined": ("CHEST", "HAND")[number // 6], "StudyDate": f"{2010 + number}0101",
            "SliceThickness": str(1 + number),
        }  # fmt: skip
        if number == 11:
            more = {"PatientBirthDate": ""}
        save(radiograph(number, f"P{number}", **more), tmp_path / "in" / f"{number}.dcm")
    table = tmp_path / "in.csv"
    table.write_text("PatientID,label\n" + "".join(f"P{number},normal\n" for number in range(12)))
    add_data(home, tmp_path / "in", table)
    return home


@pytest.mark.parametrize(
    ("rules", "used", "excluded"),
    [
        ({"age_years": {"at_least": 30, "at_most": 40}}, 3, {"age_years": 9}),
        ({"manufacturer": ["PHILIPS"]}, 5, {"manufacturer": 7}),
        ({"body_part": ["CHEST", "THORAX"]}, 6, {"body_part": 6}),
        ({"study_years": {"at_least": 2015}}, 6, {"study_years": 6}),
        ({"slice_thickness_mm": {"at_most": 2.5}}, 2, {"slice_thickness_mm": 10}),
        ({"manufacturer": ["GE"], "age_years": {"at_most": 35}}, 2, {"manufacturer": 6, "age_years": 4}),
    ],
)
def test_a_study_filters_by_what_is_known_of_an_image(
    mixed: Path, rules: dict[str, Any], used: int, excluded: dict[str, int]
) -> None:
    cohort = select(mixed, study(cohort=rules))
    assert (cohort.flow["labelled"], cohort.flow["eligible"], cohort.flow["used"]) == (12, used, used)
    assert cohort.excluded == excluded
    assert cohort.told == {"filtered": 12 - used}


def test_an_image_that_two_patients_have_is_used_of_neither_and_both_are_in_one_split(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    create_secret(home / "keys" / "pseudonym.key")
    for number in range(30):  # patients 2n and 2n + 1 share an image, and have one of their own each
        save(radiograph(2 * number, f"P{number}"), tmp_path / "in" / f"{number}.dcm")
        twice = radiograph(1000 + number // 2).PixelData
        save(radiograph(2 * number + 1, f"P{number}", PixelData=twice), tmp_path / "in" / f"{number}-b.dcm")
    table = tmp_path / "in.csv"
    table.write_text("PatientID,label\n" + "".join(f"P{number},normal\n" for number in range(30)))
    add_data(home, tmp_path / "in", table)
    cohort = select(home, study())
    assert cohort.excluded == {"same_image": 30}
    assert cohort.flow["used"] == 30
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        groups = catalogue.alike()
    assert len(set(groups.values())) == 15
    split_of = {patient: name for name, members in patients(cohort).items() for patient in members}
    for group in set(groups.values()):
        assert len({split_of[patient] for patient in groups if groups[patient] == group}) == 1


def test_patients_who_share_images_in_a_chain_are_one_group(tmp_path: Path) -> None:
    with Catalogue(tmp_path / "catalogue.sqlite") as catalogue:
        records = [
            Record(f"{patient}{image}", patient, *"abcd", 0, 0, *"efg", "{}", Traits(image=image))
            for image, pair in {"x": "ab", "y": "bc", "z": "de", "v": "ff", "w": "ca"}.items()
            for patient in dict.fromkeys(pair)
        ]  # fmt: skip
        catalogue.replace(records, [])
        groups = catalogue.alike()
    assert groups.keys() == set("abcde")
    assert groups["a"] == groups["b"] == groups["c"] != groups["d"] == groups["e"]


def _record_of(home: Path) -> Record:
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        record = catalogue.record(catalogue.labelled()[0].id)
    assert record is not None
    return record


def test_a_catalogue_of_the_release_before_is_brought_up_and_keeps_all(home: Path) -> None:
    """What 0.1 wrote: schema 2, without the traits."""
    before = select(home, study())
    with sqlite3.connect(home / "catalogue.sqlite") as connection:
        kept = ", ".join(name for name in vars(_record_of(home)) if name != "traits")
        connection.execute(f"CREATE TABLE old AS SELECT {kept} FROM objects")  # noqa: S608
        connection.execute("DROP TABLE objects")
        connection.execute("ALTER TABLE old RENAME TO objects")
        connection.execute("CREATE TABLE earlier AS SELECT kind, key, label FROM labels")
        connection.execute("DROP TABLE labels")
        connection.execute(
            "CREATE TABLE labels (kind TEXT, key TEXT, label TEXT NOT NULL, PRIMARY KEY (kind, key))"
        )
        connection.execute("INSERT INTO labels SELECT * FROM earlier")
        connection.execute("DROP TABLE readings")
        connection.execute("UPDATE facts SET value = '2' WHERE name = 'schema'")
    connection.close()
    after = select(home, study())
    assert after == before
    assert select(home, study(cohort={"age_years": {"at_least": 0}})).flow["used"] == 0


def test_a_catalogue_of_schema_3_is_brought_up_and_knows_of_no_sex(home: Path) -> None:
    before = select(home, study())
    with sqlite3.connect(home / "catalogue.sqlite") as connection:
        for column in ("sex", "longer_side_px", "intensity"):
            connection.execute(f"ALTER TABLE objects DROP COLUMN {column}")
        for column in ("reader", "source"):
            connection.execute(f"ALTER TABLE labels DROP COLUMN {column}")
        connection.execute("UPDATE facts SET value = '3' WHERE name = 'schema'")
    connection.close()
    after = select(home, study())
    assert after == before
    assert {(case.traits.sex, case.traits.intensity) for case in after.splits["train"]} == {("", None)}
    assert {case.traits.image for case in after.splits["train"]} != {""}


def test_a_catalogue_of_a_later_release_is_refused(home: Path) -> None:
    with sqlite3.connect(home / "catalogue.sqlite") as connection:
        connection.execute("UPDATE facts SET value = '99' WHERE name = 'schema'")
    connection.close()
    with pytest.raises(ConfigError, match="another release"):
        select(home, study())
