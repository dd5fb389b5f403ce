"""A comparison of score files as JSON and as tables of plain text."""

from __future__ import annotations

from typing import Any

from fedai.results import Measure, effects_json, listed, shares_json, worst, worst_json
from fedai.score_comparison import (
    Counts,
    ModelScores,
    NonInferiority,
    Pair,
    ScoreComparison,
    as_measures,
)
from fedai.tables import (
    MINUS,
    UNIT,
    Table,
    number,
    signed,
    signed_range,
    spell,
    spell_p,
    table_across,
)

Json = dict[str, Any]


def to_json(comparison: ScoreComparison) -> Json:
    """`models.<name>.auroc` and its `ci95`, `comparisons[]`, `sites`; null for what isn't known."""
    return {
        **_counts(comparison.counts),
        "sites": {site: _counts(counts) for site, counts in comparison.sites.items()},
        "models": {model.name: _model(model) for model in comparison.models},
        "comparisons": [_pair(pair, comparison.margin) for pair in comparison.pairs],
        "adjustment": {"method": "Holm", "comparisons": len(comparison.pairs)},
        "margin": comparison.margin,
        "notes": list(comparison.notes),
    }


def _counts(counts: Counts) -> Json:
    return {
        "cases": sum(counts.cases),
        "positives": counts.cases[1],
        "patients": counts.patients,
        "positive_patients": counts.members[1],
        "negative_patients": counts.members[0],
        "lacks": counts.lack or None,
    }


def _model(model: ModelScores) -> Json:
    found = worst(model.sites)
    return {
        "auroc": model.auroc.value,
        "ci95": listed(model.auroc.ci95),
        "se": model.se,
        "bound": model.bound,
        "auprc": model.auprc.value,
        "auprc_ci95": listed(model.auprc.ci95),
        "auprc_bound": model.auprc_bound,
        "brier": model.brier.value,
        "brier_ci95": listed(model.brier.ci95),
        "threshold": model.threshold,
        "sensitivity": model.sensitivity.value,
        "sensitivity_ci95": listed(model.sensitivity.ci95),
        "specificity": model.specificity.value,
        "specificity_ci95": listed(model.specificity.ci95),
        "net_benefit": model.net_benefit.value,
        "net_benefit_ci95": listed(model.net_benefit.ci95),
        "sites": {site: _measure("auroc", m) for site, m in model.sites.items()},
        "worst_site": worst_json("auroc", found),
        "across_sites": shares_json(model.across, model.left_out),
    }


def _pair(pair: Pair, margin: float | None) -> Json:
    found = pair.found
    sites = as_measures(pair.sites)
    lowest = worst(sites)
    tests = pair.non_inferior
    return {
        "a": pair.a,
        "b": pair.b,
        "difference": found.difference,
        "se": found.se,
        "ci95": listed(found.ci95),
        "df": found.df,
        "p": found.p,
        "p_adjusted": pair.p_adjusted,
        "superior": pair.superior,
        "margin": margin,
        "non_inferior": {"a": _test(tests[0]), "b": _test(tests[1])} if tests else None,
        "sites": {site: _measure("difference", m) for site, m in sites.items()},
        "worst_site": worst_json("difference", lowest),
        "across_sites": effects_json(pair.across, pair.left_out),
    }


def _test(test: NonInferiority) -> Json:
    return {"p": test.p, "p_adjusted": test.p_adjusted, "shown": test.shown}


def _measure(name: str, measure: Measure) -> Json:
    return {name: measure.value, "ci95": listed(measure.ci95)}


def tables(comparison: ScoreComparison) -> list[Table]:
    """What `fedai compare --scores` prints: models, sites, sites taken together, differences."""
    made = [_table_of_models(comparison), _table_of_sites(comparison)]
    if any(model.across for model in comparison.models):
        made.append(table_across(comparison.models, note=""))
    if comparison.pairs:
        made.append(_table_of_pairs(comparison))
    if comparison.margin is not None and comparison.pairs:
        made.append(_table_of_margin(comparison, comparison.margin))
    return made


def _table_of_models(comparison: ScoreComparison) -> Table:
    called = any(model.threshold is not None for model in comparison.models)
    rows = []
    for m in comparison.models:
        calls = (
            [_at(m.threshold), spell(m.sensitivity), spell(m.specificity), spell(m.net_benefit)]
            if called
            else []
        )
        bound = number(max(m.bound, m.auprc_bound), 4)
        rows.append((m.name, spell(m.auroc), spell(m.auprc), spell(m.brier), *calls, bound))
    calls_header = (
        ("Threshold", "Sensitivity (95% CI)", "Specificity (95% CI)", "Net benefit (95% CI)")
        if called
        else ()
    )
    header = ("Model", "AUROC (95% CI)", "AUPRC (95% CI)", "Brier (95% CI)", *calls_header)
    c = comparison.counts
    title = (
        f"All sites together: {sum(c.cases)} cases ({c.cases[1]} positive) of {c.patients} patients "
        f"({c.members[1]} with a positive case)"
    )
    note = f"{UNIT} AUPRC of a model that knows nothing: {number(c.cases[1] / sum(c.cases))}."
    return Table(title, (*header, "Binning error ≤"), tuple(rows), note)


def _at(threshold: float | None) -> str:
    return "–" if threshold is None else f"{threshold:g}"


def _table_of_sites(comparison: ScoreComparison) -> Table:
    rows = [
        (
            site,
            str(sum(c.cases)),
            str(c.patients),
            f"{c.members[1]}/{c.members[0]}",
            *(spell(m.sites[site]) for m in comparison.models),
        )
        for site, c in comparison.sites.items()
    ]
    lowest = ["Worst site", "", "", "", *(_worst_of(m) for m in comparison.models)]
    header = ("Site", "Cases", "Patients", "Positive/negative", *(m.name for m in comparison.models))
    note = "Positive/negative: patients with such a case. " + " ".join(comparison.notes)
    return Table("AUROC at each site (95% CI)", header, (*rows, tuple(lowest)), note)


def _worst_of(model: ModelScores) -> str:
    found = worst(model.sites)
    return f"{found[0]}: {number(found[1].value)}" if found else "–"


def _table_of_pairs(comparison: ScoreComparison) -> Table:
    rows = []
    for pair in comparison.pairs:
        d = pair.found
        told = f"{signed(d.difference)} ({signed_range(d.ci95) if d.ci95 else '–'})"
        lowest = worst(as_measures(pair.sites))
        at = f"{lowest[0]}: {signed(lowest[1].value or 0.0)}" if lowest else "–"
        rows.append((f"{pair.a} {MINUS} {pair.b}", told, spell_p(d.p), spell_p(pair.p_adjusted), at))
    header = ("Models", "Difference (95% CI)", "p", "p adjusted", "Lowest at")
    note = (
        f"Paired by case, clustered by patient; p adjusted for {len(comparison.pairs)} comparisons by "
        "Holm's method; intervals are not adjusted."
    )
    return Table("Differences in AUROC, all sites together", header, tuple(rows), note)


def _table_of_margin(comparison: ScoreComparison, margin: float) -> Table:
    rows = []
    for pair in comparison.pairs:
        for model, other, test in zip(
            (pair.a, pair.b), (pair.b, pair.a), pair.non_inferior or (), strict=False
        ):
            told = "superior" if pair.superior == model else "shown" if test.shown else "not shown"
            rows.append((model, other, told, spell_p(test.p), spell_p(test.p_adjusted)))
    header = ("Model", "No worse than", f"by {margin:g}", "p", "p adjusted")
    note = "One-sided tests at 2.5%, adjusted by Holm's method. The margin must have been fixed beforehand."
    return Table("Non-inferiority in AUROC", header, tuple(rows), note)
