"""Who labelled what: kept as keyed hashes, compared, and forgotten with the patient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dicom_files import radiograph, save
from fedai_site.adding import add_data
from fedai_site.catalogue import Catalogue
from fedai_site.data_views import agreement
from fedai_site.deidentify.pseudonyms import Pseudonyms, load_secret
from fedai_site.erasure import withdraw
from fedai_site.home import SiteHome, create_home
from fedai_site.labels import Reading
from fedai_site.traces import files_under
from homes import settings_for, told

NAMES = ("Hong Gildong", "Lee Sunsin")
LABELS = """PatientID,label,reader,source
A,nodule,Hong Gildong,image reading
A,clear,Lee Sunsin,image reading
B,nodule,Hong Gildong,image reading
B,nodule,Lee Sunsin,image reading
C,clear,Hong Gildong,radiology report
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    for number, patient in enumerate("ABC"):
        save(radiograph(number, patient), folder / f"{patient}.dcm")
    return folder


@pytest.fixture
def home(tmp_path: Path, export: Path) -> SiteHome:
    """Three patients, the first two read twice."""
    made = create_home(tmp_path / "north", settings_for(tmp_path))
    label(made, export, LABELS)
    return made


def label(home: SiteHome, export: Path, text: str) -> None:
    labels = home.folder.parent / "labels.csv"
    labels.write_text(text)
    add_data(home.folder, export, labels)


def labels_of(home: SiteHome) -> list[tuple[str | None, str, int]]:
    """Label, source and whether it is disputed, of A, B and C."""
    names = Pseudonyms(load_secret(home.pseudonym_key))
    with Catalogue(home.catalogue) as catalogue:
        entries = {entry.patient: entry for entry in catalogue.labelled()}
        keys = {one.patient_key: one.patient for one in catalogue.of_patients(entries)}
    found = [entries[keys[names.label_key("PatientID", patient)]] for patient in "ABC"]
    return [(entry.label, entry.source, entry.disputed) for entry in found]


def test_the_last_line_counts_and_what_readers_disagree_on_is_disputed(home: SiteHome) -> None:
    assert labels_of(home) == [
        ("clear", "image reading", 1), ("nodule", "image reading", 0), ("clear", "radiology report", 0),
    ]  # fmt: skip


def test_a_consensus_counts_before_the_readers_of_its_file_and_ends_the_dispute(
    home: SiteHome, export: Path
) -> None:
    label(home, export, "PatientID,label,reader,source\nA,nodule,,consensus\nA,clear,Lee Sunsin,\n")
    assert labels_of(home)[0] == ("nodule", "consensus", 0)
    label(home, export, "PatientID,label,reader\nA,clear,Lee Sunsin\n")
    assert labels_of(home)[0] == ("clear", "", 1), "what came later counts, and is disputed again"
    label(home, export, "PatientID,label,reader\nA,clear,hong gildong\n")
    assert labels_of(home)[0] == ("clear", "", 0), "a reader's last word is the one that is compared"


def test_no_file_of_the_home_holds_a_readers_name(home: SiteHome) -> None:
    spelt = [form.encode() for name in NAMES for form in (name, name.lower())]
    assert [path for path in files_under(home.folder) if any(one in path.read_bytes() for one in spelt)] == []


def test_the_commands_tell_of_readers(home: SiteHome, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, "data", "check", home.folder)
    disputed = [one for one in found["findings"] if one["kind"] == "LABEL_DISPUTED"]
    assert (code, len(disputed), len(disputed[0]["objects"])) == (1, 1, 1)
    _, counted = told(capsys, "data", "stats", home.folder)
    assert sorted(one["labels"] for one in counted["readers"]) == [2, 3]
    (pair,) = counted["pairs"]
    assert (pair["both"], pair["agreeing"]) == (2, 1)
    assert counted["images"]["label_source"] == {"image reading": 2, "radiology report": 1}
    _, shown = told(capsys, "data", "show", home.folder, disputed[0]["objects"][0])
    assert sorted(one["label"] for one in shown["images"][0]["readings"]) == ["clear", "nodule"]
    assert {one["reader"] for one in shown["images"][0]["readings"]} == {
        one["reader"] for one in counted["readers"]
    }


def test_a_withdrawal_forgets_what_readers_said_of_the_patient(home: SiteHome) -> None:
    with Catalogue(home.catalogue) as catalogue:
        odd = next(entry for entry in catalogue.labelled() if entry.disputed)
        record = catalogue.record(odd.id)
        assert record is not None
        assert [one.key for one in catalogue.readings(odd.id)] == [record.patient_key] * 2
    withdraw(home, [(odd.patient, record.patient_key)])
    with Catalogue(home.catalogue) as catalogue:
        assert record.patient_key not in {one.key for one in catalogue.readings()}
        assert len(catalogue.readings()) == 3


def kappa_of(pairs: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    said = [
        Reading("PatientID", f"{number} {one}", reader, "", label)
        for number, ((first, second), count) in enumerate(pairs.items())
        for one in range(count)
        for reader, label in (("a", first), ("b", second))
    ]
    return agreement(said)["pairs"][0]


def test_agreement_beyond_chance_is_cohens_kappa() -> None:
    """By hand: 35 of 50 alike; by chance 25 * 30 + 25 * 20 of 2,500."""
    pair = kappa_of({("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15})
    assert (pair["both"], pair["agreeing"]) == (50, 35)
    assert pair["kappa"] == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert kappa_of({("yes", "yes"): 5})["kappa"] is None
    assert kappa_of({("yes", "no"): 5})["kappa"] == 0
