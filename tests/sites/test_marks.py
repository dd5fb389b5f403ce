from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from fedai_site.cohort import Case, Cohort
from fedai_site.marks import marks_of, seed_of_draws
from studies import small_study

from fedai.wire import MARKS, read_marks

STUDY = small_study()
KEY = bytes(range(32))


def cohort_of(test: int = 5, **changes: object) -> Cohort:
    def cases(start: int, number: int) -> tuple[Case, ...]:
        found = [Case(f"1.{n}", f"p{n // 2}", n % 2, Path(f"/c/{n}"), f"{n:064x}") for n in range(number)]
        return tuple(replace(c, id=f"{start}.{c.id}", patient=f"{start}{c.patient}") for c in found)

    splits = {"train": cases(1, 8), "validation": cases(2, 4), "test": cases(3, test)}
    if changes:
        first = replace(splits["test"][0], **changes)  # type: ignore[arg-type]
        splits["test"] = (first, *splits["test"][1:])
    return Cohort({}, {}, {}, splits)


def marks(cohort: Cohort, key: bytes = KEY) -> dict[str, str]:
    return read_marks(marks_of(key, cohort, STUDY))


def test_the_same_cases_have_the_same_marks_in_any_order() -> None:
    cohort = cohort_of()
    turned = replace(cohort, splits={name: cases[::-1] for name, cases in cohort.splits.items()})
    assert marks(cohort) == marks(turned)
    assert set(marks(cohort)) == set(MARKS)


def test_another_key_makes_other_marks_of_the_same_cases() -> None:
    ours, theirs = marks(cohort_of()), marks(cohort_of(), KEY[::-1])
    assert all(ours[name] != theirs[name] for name in MARKS)


def test_each_mark_changes_with_what_it_is_of() -> None:
    base = marks(cohort_of())
    changed = {
        "a label": marks(cohort_of(label=1)),
        "a file": marks(cohort_of(sha256="f" * 64)),
        "a case": marks(cohort_of(test=6)),
    }
    differing = {what: {name for name in MARKS if told[name] != base[name]} for what, told in changed.items()}
    assert differing == {
        "a label": {"snapshot", "test_labels"},
        "a file": {"snapshot", "test_cases"},
        "a case": {"snapshot", "test_cases", "test_labels"},  # of a patient who is there already
    }


def test_the_weights_follow_the_test_patients_alone() -> None:
    cohort = cohort_of()
    trained = replace(cohort, splits={**cohort.splits, "train": ()})
    assert seed_of_draws(KEY, cohort) == seed_of_draws(KEY, trained)
    assert seed_of_draws(KEY, cohort) != seed_of_draws(KEY, cohort_of(test=8))
    assert np.unique(marks_of(KEY, cohort, STUDY), axis=0).shape == (len(MARKS), 32)
