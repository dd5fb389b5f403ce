from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from studies import SMALL, merged, small_study

from fedai.choice import (
    BY_FEW,
    OWN_PARTS,
    Checkpoint,
    EarlyStopping,
    Validated,
    best_of,
    chosen_of,
    compared,
    unbeaten,
    validations,
    value_of,
    why_early,
)
from fedai.errors import ConfigError
from fedai.events import CheckpointChosen, event_of
from fedai.strategies import Rule, Strategy
from fedai.study import Study, parse_study, read_study

SITES = ("north", "east", "south")
VALUES = st.one_of(
    st.floats(0, 1), st.sampled_from([0.5, math.nan, math.inf, -math.inf, 1e308]), st.just(0.25)
)
TOLD = st.dictionaries(st.sampled_from(SITES), st.tuples(VALUES, st.integers(0, 50)))
COURSES = st.lists(TOLD, min_size=1, max_size=8).map(
    lambda told: [Validated(number, of) for number, of in enumerate(told, start=1)]
)
LOSS, AUROC = Checkpoint(choose="best"), Checkpoint(choose="best", by="validation_auroc")


def course(*values: float, site: str = "north", cases: int = 5) -> list[Validated]:
    return [Validated(n, {site: (value, cases)}) for n, value in enumerate(values, start=1)]


def chosen(checkpoints: list[Validated], rule: Checkpoint = LOSS) -> int:
    return int(chosen_of(checkpoints, rule, len(checkpoints))["round"])


@given(COURSES, st.randoms(use_true_random=False), st.sampled_from([LOSS, AUROC]))
def test_the_choice_does_not_depend_on_any_order(checkpoints: list[Validated], rng: Any, rule: Any) -> None:
    other = [
        Validated(one.number, dict(rng.sample(list(one.told.items()), len(one.told)))) for one in checkpoints
    ]
    rng.shuffle(other)
    last = len(checkpoints)
    assert chosen_of(other, rule, last) == chosen_of(checkpoints, rule, last)


@given(COURSES, st.sampled_from([LOSS, AUROC]))
def test_what_is_not_a_number_never_wins_and_no_competitor_is_better(
    checkpoints: list[Validated], rule: Any
) -> None:
    facts = chosen_of(checkpoints, rule, len(checkpoints))
    values = {int(number): value for number, value in facts["values"].items()}
    assert all(math.isfinite(value) for value in values.values())
    if facts["is_best"]:
        most = min if rule.by == "validation_loss" else max
        assert values[facts["round"]] == most(values.values())
        assert all(n >= facts["round"] for n, value in values.items() if value == values[facts["round"]])
    else:
        assert (values, facts["round"]) == ({}, len(checkpoints))


@given(COURSES)
def test_all_competitors_were_validated_by_the_same_sites(checkpoints: list[Validated]) -> None:
    field = compared(checkpoints)
    for one in checkpoints:
        if one.number in field.values:
            assert all(one.told[site][1] > 0 and math.isfinite(one.told[site][0]) for site in field.sites)


def test_the_lowest_loss_and_the_highest_auroc_win_and_ties_go_to_the_earlier_round() -> None:
    assert chosen(course(0.4, 0.2, 0.3, 0.2)) == 2
    assert chosen(course(0.4, 0.9, 0.8, 0.9), AUROC) == 2


def test_sites_count_by_their_validation_cases() -> None:
    two = [
        Validated(1, {"north": (0.9, 1), "south": (0.5, 9)}),
        Validated(2, {"north": (0.5, 1), "south": (0.6, 9)}),
    ]
    assert compared(two).values == pytest.approx({1: 0.54, 2: 0.59})
    assert (chosen(two, AUROC), compared(two).cases) == (2, 10)


def test_a_checkpoint_that_a_hard_site_did_not_validate_is_not_the_better_for_it() -> None:
    whole = {"north": (0.9, 5), "south": (0.5, 5)}
    rounds = [Validated(n, whole) for n in (1, 2, 4)] + [Validated(3, {"north": (0.95, 5)})]
    assert set(compared(rounds).values) == {1, 2, 4}


def test_a_site_that_left_for_good_takes_no_checkpoint_out_of_the_choice() -> None:
    early = [Validated(n, {"north": (0.8, 5), "south": (0.5, 5)}) for n in (1, 2)]
    later = [Validated(n, {"north": (0.8 + n / 100, 5)}) for n in range(3, 7)]
    assert compared(early + later).sites == ("north",)
    assert chosen(early + later, AUROC) == 6


def test_where_nothing_can_be_compared_the_last_is_taken_and_it_is_said_so() -> None:
    facts = chosen_of([Validated(1, {}), Validated(2, {"north": (math.nan, 3)})], LOSS, 2)
    assert (facts["round"], facts["is_best"], facts["value"]) == (2, False, None)
    assert facts["why"].startswith("the last: no checkpoint")


def test_training_ends_when_so_many_in_a_row_are_no_better() -> None:
    rule = EarlyStopping(patience=2)
    assert unbeaten({1: 0.5, 2: 0.3, 3: 0.4}, "validation_loss", rule) is None
    assert unbeaten({1: 0.5, 2: 0.3, 3: 0.4, 4: 0.3}, "validation_loss", rule) == 2
    assert unbeaten({1: 0.5, 2: 0.3, 3: 0.4, 4: 0.2}, "validation_loss", rule) is None
    assert unbeaten({1: 0.5, 2: 0.6, 3: 0.55}, "validation_auroc", rule) is None


def test_a_gain_below_the_least_one_is_none() -> None:
    values = {1: 0.50, 2: 0.505, 3: 0.509}
    assert unbeaten(values, "validation_auroc", EarlyStopping(patience=2, min_delta=0.01)) == 1
    assert unbeaten(values, "validation_auroc", EarlyStopping(patience=2)) is None
    assert (
        unbeaten({**values, 3: 0.52}, "validation_auroc", EarlyStopping(patience=2, min_delta=0.01)) is None
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 5))
def test_what_never_gets_better_ends_after_exactly_the_patience(values: list[float], patience: int) -> None:
    falling = dict(enumerate(sorted(values), start=1))
    ended = unbeaten(falling, "validation_loss", EarlyStopping(patience=patience))
    assert ended == (1 if len(values) > patience else None)


def test_the_numbers_that_come_with_a_round_are_of_the_checkpoint_before() -> None:
    told = {"north": {"loss": 0.7, "auroc": [0.6, None], "cases": 4}}
    rounds = [{"number": n, "validation": told} for n in (1, 2, 3)]
    last = {"number": 3, "validation": told}
    assert [one.number for one in validations(rounds, None, "validation_loss")] == [1, 2]
    assert [one.number for one in validations(rounds, last, "validation_loss")] == [1, 2, 3]
    assert validations(rounds, None, "validation_auroc")[0].told == {"north": (0.6, 4)}


@pytest.mark.parametrize("told", [{}, {"loss": None}, {"loss": math.nan}, {"auroc": [None]}])
def test_a_value_that_a_site_did_not_tell_is_none(told: dict[str, Any]) -> None:
    assert math.isnan(value_of(told, "validation_loss"))
    assert math.isnan(value_of(told, "validation_auroc"))


def test_the_reason_is_one_line() -> None:
    said = "stopped early after round 5 of 9: no better validation_auroc since round 2"
    assert why_early(2, 5, 9, "validation_auroc") == said


def test_who_follows_a_run_hears_which_round_was_chosen() -> None:
    facts = chosen_of(course(0.4, 0.2, 0.3), LOSS, 3)
    assert event_of("small-1", "checkpoint_chosen", facts) == CheckpointChosen(
        "small-1", 2, "validation_loss", 0.2
    )


# ---------------------------------------------------------------- in a study


def test_a_study_without_a_choice_keeps_its_hash_and_each_choice_has_another() -> None:
    plain = small_study()
    assert "checkpoint" not in plain.canonical()
    assert "early" not in plain.canonical()
    assert small_study(training={"checkpoint": {"choose": "last"}}).sha256 == plain.sha256
    changes: list[dict[str, Any]] = [
        {"checkpoint": {"choose": "best"}},
        {"checkpoint": {"choose": "best", "by": "validation_auroc"}},
        {"rounds": 9, "early_stopping": {"patience": 2}},
        {"rounds": 9, "early_stopping": {"patience": 3}},
        {"rounds": 9},
    ]
    studies = [small_study(training=change) for change in changes]
    assert len({study.sha256 for study in studies} | {plain.sha256}) == 6
    assert [parse_study(study.canonical()) for study in studies] == studies


def test_all_that_can_not_be_chosen_is_told_at_once(tmp_path: Path) -> None:
    rule = {"choose": "best", "by": "validation_dice"}
    training = {"rounds": 5, "checkpoint": rule, "early_stopping": {"patience": 3}}
    strategy = {"name": "FedBuff", "buffer": 2}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(merged(SMALL, {"training": training, "strategy": strategy, "name": "X"})))
    with pytest.raises(ConfigError) as caught:
        read_study(path)
    for told in (
        "training.checkpoint.by: validation_dice is of a segmentation",
        "training.early_stopping.patience: 5 rounds are over before 3 checkpoints",
        "training.checkpoint: under FedBuff each checkpoint is validated by other sites",
        "training.early_stopping: under FedBuff",
        "name: names are lower-case letters",
    ):
        assert told in caught.value.message


def of_kind(strategy: type[Rule]) -> bool:
    return strategy.private is not Rule.private or strategy.personal_weight is not Rule.personal_weight


def test_strategies_that_leave_a_part_of_the_model_at_sites_choose_the_last() -> None:
    every = {rule.__name__: rule for rule in get_args(get_args(Strategy)[0])}
    assert {name for name, rule in every.items() if of_kind(rule)} == set(OWN_PARTS)
    assert set(BY_FEW) < set(every)
    for name in OWN_PARTS:
        with pytest.raises(ValueError, match="choose last"):
            small_study(strategy={"name": name}, training={"checkpoint": {"choose": "best"}})
        stopping = {"rounds": 9, "early_stopping": {"patience": 2}}
        assert isinstance(small_study(strategy={"name": name}, training=stopping), Study)


def test_patience_that_leaves_a_round_to_save_is_sound() -> None:
    assert small_study(training={"rounds": 5, "early_stopping": {"patience": 2}}).training.early_stopping
    assert best_of({}, "validation_loss") is None
