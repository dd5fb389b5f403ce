from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
from federations import Cases, draw_cases, judgement_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from fedai.compare import compare
from fedai.errors import FederationError
from fedai.linking import JointCalls, Linked, calls_forms, linked_forms
from fedai.metrics import ScoreHistogram
from fedai.replicates import REPLICATES, mark_of_draws, replicate
from fedai.statistics import mcnemar

SEEDS = st.integers(0, 2**32 - 1)
SKILL = {"federated": 1.4, "local:a": 0.8, "centralised": 1.5}
BINARY = ("normal", "nodule")


def cases_of(seed: int, patients: int = 40, classes: int = 2, most_images: int = 3) -> Cases:
    rng = np.random.default_rng(seed)
    return draw_cases(rng, f"s{seed}", patients, skill=SKILL, classes=classes, most_images=most_images)


def calls_of(cases: Cases) -> JointCalls:
    return JointCalls.of(list(cases.scores.values()), cases.labels, cases.patients, 0.5, b"seed")


def linked_of(cases: Cases, pool: list[ScoreHistogram]) -> Linked:
    return Linked.of(list(cases.scores.values()), pool, cases.labels, cases.patients, b"seed")


def assert_same(a: Linked | JointCalls, b: Linked | JointCalls) -> None:
    left, right = a.to_arrays(), b.to_arrays()
    for name, array in left.items():
        np.testing.assert_allclose(array, right[name], rtol=1e-5, atol=1e-4, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([2, 3]))
def test_what_links_models_adds_up_in_any_order(seed: int, classes: int) -> None:
    parts = [cases_of(seed + i, 12, classes) for i in range(3)]
    pool = [
        functools.reduce(operator.add, (ScoreHistogram.of(c.scores[m], c.labels) for c in parts))
        for m in SKILL
    ]
    for make in (lambda c: linked_of(c, pool), calls_of):
        a, b, c = (make(part) for part in parts)
        assert_same(a + b, b + a)
        assert_same((a + b) + c, a + (b + c))


@pytest.mark.parametrize("classes", [2, 3])
def test_arrays_are_of_the_forms_told_and_come_back_whole(classes: int) -> None:
    cases, k = cases_of(1, classes=classes), 1 if classes == 2 else classes
    pool = [ScoreHistogram.of(s, cases.labels) for s in cases.scores.values()]
    for value, forms in ((linked_of(cases, pool), linked_forms(3, k)), (calls_of(cases), calls_forms(3, k))):
        arrays = value.to_arrays()
        assert {name: (str(a.dtype), a.shape) for name, a in arrays.items()} == forms
        assert_same(type(value).from_arrays(arrays), value)
        for name in arrays:
            with pytest.raises(FederationError):
                type(value).from_arrays({**arrays, name: arrays[name][..., :-1]})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("calls_both", lambda a: a * 1000),
        ("calls_products", lambda a: a + np.triu(np.ones(a.shape))),
        ("calls_cases", lambda a: a - a),
    ],
)
def test_joint_calls_that_can_not_be_are_refused(name: str, change) -> None:  # type: ignore[no-untyped-def]
    arrays = calls_of(cases_of(2)).to_arrays()
    with pytest.raises(FederationError):
        JointCalls.from_arrays({**arrays, name: change(arrays[name])})


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_mcnemar_is_statsmodels_where_every_patient_has_one_case(seed: int) -> None:
    cases = cases_of(seed, 120, most_images=1)
    found = [c for c in compare(judgement_of({"a": cases}, BINARY)).calls if c.cases_of == "pooled"]
    assert {(c.b, c.on) for c in found} == {
        (b, on) for b in ("local:a", "centralised") for on in ("all", "positives", "negatives")
    }
    right = {m: (s[:, 1] >= 0.5) == (cases.labels == 1) for m, s in cases.scores.items()}
    sides = {"all": cases.labels >= 0, "positives": cases.labels == 1, "negatives": cases.labels == 0}
    for c in found:
        a, b = right[c.a][sides[c.on]], right[c.b][sides[c.on]]
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        assert (c.a_only, c.b_only) == (table[0][1], table[1][0])
        assert c.difference == pytest.approx(a.mean() - b.mean())
        if c.a_only or c.b_only:
            expected = reference_mcnemar(table, exact=False, correction=False).pvalue
            assert c.p == pytest.approx(expected, abs=1e-10)
        else:
            assert c.p is None


def test_mcnemar_counts_patients_and_not_images() -> None:
    """Twenty discordant images of four patients are no twenty pieces of evidence."""
    assert mcnemar(20, 4 * 5**2) == pytest.approx(mcnemar(4, 4))
    assert (mcnemar(20, 20) or 1) < 1e-4
    assert mcnemar(0, 0) is None


def test_average_precision_of_a_run_is_scikit_learns_within_its_bound() -> None:
    cases = cases_of(5, 150)
    for model in compare(judgement_of({"a": cases}, BINARY)).models:
        result = model.pooled.classes[0]
        raw = average_precision_score(cases.labels, cases.scores[model.name][:, 1])
        assert abs((result.auprc.value or 0) - raw) <= (result.auprc_bound or 0) + 1e-12
        assert result.auprc.ci95 is not None
        assert result.auprc.ci95[0] < (result.auprc.value or 0) < result.auprc.ci95[1]


def test_replicates_have_the_covariance_of_the_sums() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 4)) @ np.diag([1, 2, 3, 4])
    drawn = replicate(rows, b"seed").astype(np.float64)
    assert drawn.shape == (4, REPLICATES)
    scale = np.sqrt(np.diag(rows.T @ rows))
    close = 5 / np.sqrt(REPLICATES)
    np.testing.assert_allclose(drawn @ drawn.T / REPLICATES / np.outer(scale, scale),
                               rows.T @ rows / np.outer(scale, scale), atol=close)  # fmt: skip


def test_replicates_of_patients_in_parts_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 3))
    whole = replicate(rows, b"seed")
    monkeypatch.setattr("fedai.replicates.AT_ONCE", 7)
    np.testing.assert_allclose(replicate(rows, b"seed"), whole, rtol=1e-4, atol=1e-4)


def test_one_seed_draws_the_same_and_another_one_other_weights() -> None:
    rows = np.ones((5, 1))
    assert np.array_equal(replicate(rows, b"a"), replicate(rows, b"a"))
    assert abs(np.corrcoef(replicate(rows, b"a"), replicate(rows, b"b"))[0, 1]) < 0.2
    assert mark_of_draws(b"a") == mark_of_draws(b"a") != mark_of_draws(b"b")
