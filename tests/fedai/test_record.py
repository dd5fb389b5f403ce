from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import draw_judgement, draw_record

from fedai.checklists import answers
from fedai.compare import compare
from fedai.errors import ConfigError
from fedai.record import final_of, final_words, find_run, is_early, read_judgement, read_record
from fedai.report import render


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "registry" / "cxr-nodule-1"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(draw_record()))
    (folder / "judgement.json").write_text(json.dumps(draw_judgement().to_json()))
    return folder


def test_a_run_is_found_by_its_name_in_a_home_and_by_its_folder(run: Path, tmp_path: Path) -> None:
    assert find_run("cxr-nodule-1", tmp_path / "home") == run
    assert find_run(str(run), Path("/nowhere")) == run


@pytest.mark.parametrize("name", ["cxr-nodule-2", "", "/", "../home"])
def test_what_is_no_run_is_named(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="there is no ended run"):
        find_run(name, tmp_path / "home")


def test_what_was_written_is_read(run: Path) -> None:
    assert read_record(run) == draw_record()
    assert read_judgement(run).to_json() == draw_judgement().to_json()


@pytest.mark.parametrize("text", ["", "{", "7", "[1]", "\x00"])
def test_a_broken_file_is_named(run: Path, text: str) -> None:
    for name, read in (("record.json", read_record), ("judgement.json", read_judgement)):
        (run / name).write_text(text)
        with pytest.raises(ConfigError, match=name):
            read(run)


def test_a_judgement_of_another_shape_is_refused(run: Path) -> None:
    (run / "judgement.json").write_text('{"models": []}')
    with pytest.raises(ConfigError, match="not a judgement of this version"):
        read_judgement(run)


@pytest.mark.parametrize(
    ("part", "damage", "told"),
    [
        ("models", None, "models, classes or threshold: of another form"),
        ("scores", {"north": None}, "scores: of another form"),
        ("scores", {"north": {"federated": {}}}, "scores: histogram is missing"),
        ("pooled", None, "pooled: of another form"),
        ("pooled", "gone", "pooled: of another form"),
        ("own", {}, "models, scores, pooled, own and calls together"),
        ("own", {"north": {"products": [[1e400]], "sums": []}}, "own: "),
        ("threshold", [], "models, classes or threshold: of another form"),
    ],
)
def test_a_damaged_judgement_is_told_of_in_words(run: Path, part: str, damage: object, told: str) -> None:
    whole = draw_judgement().to_json()
    (run / "judgement.json").write_text(json.dumps({**whole, part: damage}))
    with pytest.raises(ConfigError) as caught:
        read_judgement(run)
    assert told in caught.value.message
    assert "Error(" not in str(caught.value)
    assert caught.value.hint


def test_a_run_that_failed_says_why_it_can_not_be_compared(run: Path) -> None:
    (run / "judgement.json").unlink()
    failed = draw_record() | {"state": "failed", "reason": "round 2 closed with 1 of 2 answers needed"}
    (run / "record.json").write_text(json.dumps(failed))
    with pytest.raises(ConfigError, match=r"has no judgement, it failed: round 2 closed") as caught:
        read_judgement(run)
    assert caught.value.hint


def judged_at(number: int, **more: object) -> dict[str, object]:
    """A record of five rounds whose study chose a checkpoint by AUROC."""
    record = draw_record()
    study = {**record["study"], "training": {"rounds": 5}}
    chosen = {
        "by": "validation_auroc",
        "is_best": True,
        "round": number,
        "value": 0.81239,
        "last": 5,
        "cases": 40,
        "sites": ["east", "north"],
        "checkpoint": "c" * 64,
        "why": "the best of 5 by validation_auroc, 0.8124",
    }
    return {**record, "state": "finished", "study": study, "chosen": chosen, **more}


def test_the_runs_model_is_the_chosen_rounds_or_else_the_last() -> None:
    plain = draw_record()
    last = plain["rounds"][-1]
    assert final_of(plain) == (last["number"], last["checkpoint"])
    assert final_words(plain) == f"round {last['number']}: the last, as the study says"
    assert final_of(judged_at(2)) == (2, "c" * 64)
    assert final_words(judged_at(2)) == "round 2: the best of 5 by validation_auroc, 0.8124"
    assert (final_of({}), final_words({})) == ((0, ""), "")


def test_report_and_checklist_tell_which_checkpoint_was_chosen() -> None:
    judgement = draw_judgement()
    comparison = compare(judgement)
    record = judged_at(2)
    told = answers(record, comparison)["selection"]
    assert told == (
        "By rule fixed beforehand: of 5 rounds' models that of round 2, with the best AUROC (0.8124) on 40 "
        "validation images of east, north. No test image had a part in it."
    )
    html = render(record, comparison, judgement)
    assert "c" * 64 in html
    assert "round 2: the best of 5 by validation_auroc, 0.8124" in html
    plain = {**record, "chosen": {}}
    assert answers(plain, comparison)["selection"].startswith("The last round's, as fixed beforehand")


def test_a_run_that_ended_early_says_so() -> None:
    record = judged_at(2)
    training = {"rounds": 9, "early_stopping": {"patience": 2, "min_delta": 0.0}}
    record["study"] = {**draw_record()["study"], "training": training}
    assert final_words(record).endswith("; training ended early, after 5 of 9")
    told = answers(record, compare(draw_judgement()))["selection"]
    assert "Training ended after 5 of 9 rounds, by the AUROC on validation images." in told
    assert not is_early({**record, "state": "failed"})
