from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from studies import SMALL, merged, small_study

from fedai.errors import ConfigError
from fedai.selection import Selection, select, wanted_of
from fedai.study import parse_study, read_study

SITES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 500), min_size=1)
RULES = st.builds(
    Selection, by=st.sampled_from(["random", "size"]), fraction=st.none(), number=st.integers(1, 8)
)


def drawn(
    rule: Selection, cases: dict[str, int], number: int, seed: int = 7, quorum: int = 1
) -> tuple[str, ...]:
    return select(rule, cases, seed=seed, number=number, quorum=quorum)


@given(SITES, RULES, st.integers(1, 50), st.randoms(use_true_random=False))
def test_the_draw_depends_on_seed_and_round_and_on_no_order(
    cases: dict[str, int], rule: Selection, number: int, rng: Any
) -> None:
    names = list(cases)
    rng.shuffle(names)
    other = {name: cases[name] for name in names}
    assert set(drawn(rule, cases, number)) == set(drawn(rule, other, number))
    assert drawn(rule, cases, number) == tuple(s for s in cases if s in drawn(rule, other, number))


@given(SITES, RULES, st.integers(1, 50), st.integers(1, 8))
def test_as_many_are_drawn_as_the_rule_says_and_never_fewer_than_the_quorum(
    cases: dict[str, int], rule: Selection, number: int, quorum: int
) -> None:
    assert len(drawn(rule, cases, number, quorum=quorum)) == min(len(cases), max(rule.number or 0, quorum))


def test_a_site_without_a_case_is_drawn_last() -> None:
    rule = Selection(by="size", number=2)
    assert all("c" not in drawn(rule, {"a": 1, "b": 1, "c": 0}, n) for n in range(1, 50))


def test_all_sites_train_where_the_study_says_nothing() -> None:
    assert drawn(Selection(), {"a": 1, "b": 0}, 3) == ("a", "b")


def test_rounds_and_seeds_draw_anew() -> None:
    rule, cases = Selection(by="random", number=1), dict.fromkeys("abc", 10)
    assert {drawn(rule, cases, n) for n in range(1, 30)} == {("a",), ("b",), ("c",)}
    assert any(drawn(rule, cases, n) != drawn(rule, cases, n, seed=8) for n in range(1, 30))


@pytest.mark.parametrize(("by", "expected"), [("random", (1 / 3, 1 / 3, 1 / 3)), ("size", (0.1, 0.3, 0.6))])
def test_one_of_several_is_drawn_as_often_as_it_should_be(by: Any, expected: tuple[float, ...]) -> None:
    cases, rounds = {"a": 10, "b": 30, "c": 60}, 3000
    counts = Counter(drawn(Selection(by=by, number=1), cases, n)[0] for n in range(1, rounds + 1))
    for site, share in zip(cases, expected, strict=True):
        assert abs(counts[site] / rounds - share) < 4 * (share * (1 - share) / rounds) ** 0.5


def test_a_fraction_is_rounded_up_to_sites() -> None:
    assert [wanted_of(Selection(by="random", fraction=0.3), n) for n in (1, 3, 10, 11)] == [1, 1, 3, 4]


# ---------------------------------------------------------------- in a study


def test_a_study_that_draws_no_sites_keeps_its_hash() -> None:
    plain = small_study()
    assert "selection" not in plain.canonical()
    assert small_study(rounds={"selection": {"by": "all"}}).sha256 == plain.sha256
    drawing = small_study(rounds={"selection": {"by": "size", "number": 2}})
    assert drawing.sha256 != plain.sha256
    assert parse_study(drawing.canonical()) == drawing


IMPOSSIBLE = [
    ({}, {"by": "random"}, ["rounds.selection: say how many are drawn"]),
    ({}, {"by": "size", "number": 2, "fraction": 0.9}, ["rounds.selection: say how many are drawn"]),
    ({}, {"by": "all", "number": 2}, ["all sites are asked: number would mean nothing"]),
    ({}, {"by": "random", "number": 1}, ["number: 1 of 3 sites are drawn, fewer than the quorum, 2"]),
    ({}, {"by": "random", "fraction": 0.2}, ["fraction: 1 of 3 sites are drawn, fewer than the quorum"]),
    ({}, {"by": "random", "number": 4}, ["number: 4 are to be drawn, but only 3 sites are named"]),
    (
        {"strategy": {"name": "Cyclic"}, "training": {"checkpoint": {"choose": "best"}}, "name": "X"},
        {"by": "random", "number": 1},
        [
            "rounds.selection.by: no sites can be drawn: Cyclic has an order of its own",
            "rounds.selection.by: each checkpoint would be validated by other sites",
            "fewer than the quorum",
            "name: names are lower-case",
            "training.checkpoint: under Cyclic",
        ],
    ),
    ({"strategy": {"name": "FedBuff"}}, {"by": "size", "number": 2}, ["FedBuff asks whoever is free"]),
]


@pytest.mark.parametrize(("changes", "rule", "told"), IMPOSSIBLE)
def test_what_can_not_be_is_told_at_once(
    changes: dict[str, Any], rule: dict[str, Any], told: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(merged(merged(SMALL, changes), {"rounds": {"selection": rule}})))
    with pytest.raises(ConfigError) as caught:
        read_study(path)
    assert [line for line in told if line not in caught.value.message] == []
