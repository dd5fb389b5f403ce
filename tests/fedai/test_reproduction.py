from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedai.errors import ConfigError
from fedai.reproduction import compare_runs

COHORT = {"marks": {"snapshot": "aa"}}
ROUND = {"number": 1, "answered": ["north", "south"]}


def run(folder: Path, name: str, weights: dict[str, bytes], **changes: Any) -> Path:
    """A run's folder with a record and these checkpoints."""
    record = {
        "run": name,
        "study_hash": "s",
        "study": {"sites": ["north", "south"]},
        "cohorts": {"north": COHORT, "south": COHORT},
        "versions": {"north": {"torch": "2.13"}, "south": {"torch": "2.13"}},
        "rounds": [ROUND],
    } | changes
    for model, content in weights.items():
        (folder / name / model).mkdir(parents=True)
        (folder / name / model / "weights.safetensors").write_bytes(content)
    (folder / name / "record.json").write_text(json.dumps(record))
    return folder / name


WEIGHTS = {"round-0000": b"0", "round-0001": b"1", "local-north": b"n"}


def test_a_run_with_the_same_checkpoints_is_the_same(tmp_path: Path) -> None:
    found = compare_runs(run(tmp_path, "a", WEIGHTS), run(tmp_path, "b", WEIGHTS))
    assert found.is_same
    assert set(found.models) == {"federated", "local:north", "round-0000", "round-0001"}
    assert found.reasons == ()


@pytest.mark.parametrize(
    ("weights", "model", "state"),
    [
        ({**WEIGHTS, "local-north": b"x"}, "local:north", "other"),
        ({"round-0000": b"0", "round-0001": b"1"}, "local:north", "missing"),
        ({**WEIGHTS, "round-0001": b"x"}, "federated", "other"),
    ],
)
def test_one_model_that_differs_or_is_missing_is_named(
    tmp_path: Path, weights: dict[str, bytes], model: str, state: str
) -> None:
    found = compare_runs(run(tmp_path, "a", WEIGHTS), run(tmp_path, "b", weights))
    assert not found.is_same
    assert found.models[model] == state


def test_a_run_without_any_model_is_not_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert not compare_runs(run(tmp_path, "a", {}), run(tmp_path, "b", {})).is_same


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"study_hash": "t"}, "the studies differ"),
        ({"cohorts": {"north": COHORT}}, "south was not in both runs"),
        ({"cohorts": {"north": COHORT, "south": {"marks": {"snapshot": "b"}}}}, "south has other data now"),
        ({"versions": {"north": {"torch": "2.14"}}}, "north has torch 2.14 now, 2.13 then"),
        ({"rounds": [{"number": 1, "answered": ["north"]}]}, "round 1 was of other sites (north)"),
    ],
)
def test_what_the_seeds_do_not_fix_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    found = compare_runs(run(tmp_path, "a", WEIGHTS), run(tmp_path, "b", WEIGHTS, **changes))
    assert found.reasons == (said,)


def test_a_run_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        compare_runs(tmp_path, tmp_path)
