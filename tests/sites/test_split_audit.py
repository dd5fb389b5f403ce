"""Ten thousand patients with several studies each: no patient is in two splits, whatever happens to them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from fedai_site.catalogue import Catalogue, Record
from fedai_site.cohort import SPLITS, select
from fedai_site.consents import Consents
from hypothesis import given, settings
from hypothesis import strategies as some
from studies import small_study

from fedai.study import Study

PATIENTS = 10_000
STUDY = small_study()
LABELS = ("clear", "nodule", "other")


@cache
def records_of(patient: int) -> tuple[Record, ...]:
    """Two or three studies of a patient, some of two images."""
    draw = random.Random(patient)
    images = [
        (study, image) for study in range(draw.randint(2, 3)) for image in range(draw.choice((1, 1, 2)))
    ]
    return tuple(_record(patient, f"{patient}.{study}", image) for study, image in images)


def _record(patient: int, study: str, image: int) -> Record:
    name, digest = f"2.25.{study}.{image}", f"{patient:063x}{image}"
    evidence = f'{{"key_id": "k", "profile": "basic", "output_sha256": "{digest}"}}'
    place = (name, f"p{patient:026d}", f"2.25.{study}", "CR", f"clean/{name}", digest, 1, 1)
    return Record(*place, f"key {patient}", f"acc {study}", name, evidence)


class Audited:
    """A home whose cohort is looked at after every change: each patient is where it was first."""

    def __init__(self, home: Path) -> None:
        self.home, self.there, self.first = home, set[int](), dict[tuple[str, str], str]()

    def hold(self, patients: Iterable[int]) -> None:
        """Put exactly these patients into the catalogue, as adding and erasing do."""
        self.there = set(patients)
        with Catalogue(self.home / "catalogue.sqlite") as catalogue:
            catalogue.replace((one for patient in sorted(self.there) for one in records_of(patient)), ())

    def label(self, patients: Iterable[int], seed: int) -> None:
        """By patient, and for some studies another label by accession."""
        draw = random.Random(seed)
        with Catalogue(self.home / "catalogue.sqlite") as catalogue:
            rows = [(f"key {patient}", draw.choice(LABELS)) for patient in patients]
            catalogue.set_labels("PatientID", rows)
            some_studies = draw.sample(sorted(self.there), len(self.there) // 5)
            rows = [(f"acc {patient}.0", draw.choice(LABELS)) for patient in some_studies]
            catalogue.set_labels("AccessionNumber", rows)

    def look(self, study: Study = STUDY) -> int:
        """Select and check; gives the number of patients used."""
        splits = select(self.home, study).splits
        by_split = {name: {case.patient for case in splits[name]} for name in SPLITS}
        everyone = [patient for patients in by_split.values() for patient in patients]
        assert len(everyone) == len(set(everyone)), "a patient is in two splits"
        plan = f"{study.name}/{study.split.seed}"
        for name, patients in by_split.items():
            for patient in patients:
                assert self.first.setdefault((plan, patient), name) == name, "a patient has moved"
        return len(everyone)


@pytest.mark.slow
def test_ten_thousand_patients_stay_where_they_are(tmp_path: Path) -> None:
    audit = Audited(tmp_path)
    audit.hold(range(6000))
    audit.label(range(PATIENTS), seed=1)
    assert audit.look() > 3500
    audit.hold(range(PATIENTS))  # new data, and other labels, so other strata
    audit.label(range(PATIENTS), seed=2)
    before = audit.look()
    gone = random.Random(7).sample(range(PATIENTS), 1000)
    with Consents(tmp_path) as consents:
        consents.withdraw((f"p{patient:026d}", f"key {patient}") for patient in gone)
    withdrawn = audit.look()  # in force before the objects are erased
    assert before - 1000 <= withdrawn < before
    back = {f"p{patient:026d}" for patient in gone[:500]}
    audit.hold(set(range(PATIENTS)) - set(gone))
    with Consents(tmp_path) as consents:
        consents.put([], [one for one in consents.withdrawals() if one.patient in back])
    audit.hold(set(range(PATIENTS)) - set(gone[500:]))  # half of them consent again and come back
    assert withdrawn < audit.look() < before
    assert audit.look(small_study(name="another")) > 6000
    assert len({patient for _, patient in audit.first}) > 8000


kinds = some.sampled_from(["add", "drop", "withdraw", "renew", "label"])
changes = some.lists(some.tuples(kinds, some.sets(some.integers(0, 30))), max_size=12)


@given(changes)
@settings(max_examples=25, deadline=None)
def test_no_order_of_changes_moves_a_patient(steps: list[tuple[str, set[int]]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        audit = Audited(Path(folder))
        audit.hold(range(10))
        audit.label(range(31), seed=0)
        for number, (change, patients) in enumerate(steps):
            names = {f"p{patient:026d}" for patient in patients}
            with Consents(audit.home) as consents:
                if change == "withdraw":
                    consents.withdraw((name, "") for name in sorted(names))
                if change == "renew":
                    consents.put([], [one for one in consents.withdrawals() if one.patient in names])
            if change in ("add", "drop"):
                audit.hold(audit.there | patients if change == "add" else audit.there - patients)
            if change == "label":
                audit.label(sorted(patients), seed=number)
            audit.look()
