"""What is printed: where every image went, and the models side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedai.cli.output import table
from fedai.results import FEDERATED, MACRO, MEAN_OF_LOCAL, POOLED, Comparison, ModelResults, Result
from fedai.tables import spell, spell_difference
from fedai.wire import FLOW, SPLITS

Json = dict[str, Any]


def missing(cohorts: Mapping[str, Json], exported: Mapping[str, int]) -> list[str]:
    """What doesn't add up: images that weren't found, or that neither are used nor have a reason."""
    faults = []
    for site, count in exported.items():
        flow, excluded = cohorts[site]["flow"], cohorts[site]["excluded"]
        split = sum(facts["cases"] for facts in cohorts[site]["splits"].values())
        if flow["found"] != count:
            faults.append(f"{site}: {flow['found']} of {count} exported images were found")
        told = flow["used"] + sum(excluded.values())
        if told != flow["found"]:
            faults.append(f"{site}: {flow['found']} were found, {told} are used or excluded")
        if split > flow["used"]:  # fewer are told where a class has too few patients in a split
            faults.append(f"{site}: {split} images in the splits, {flow['used']} used")
    return faults


def accounting(
    cohorts: Mapping[str, Json], exported: Mapping[str, int], classes: tuple[str, ...]
) -> Iterator[str]:
    """Tables: the way of the images from export to split, and the classes at each site."""
    rows = [(site, _way(count, cohorts[site])) for site, count in exported.items()]
    sums = tuple(sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True))
    yield from table(
        ("site", "exported", *FLOW, "excluded", *SPLITS),
        [*((site, *numbers) for site, numbers in rows), ("all", *sums)],
    )
    yield ""
    by_site = [(site, *_classes(cohorts[site])) for site in exported]
    yield from table(("images used", *classes), by_site)


def _way(count: int, cohort: Json) -> tuple[int, ...]:
    excluded = sum(cohort["excluded"].values())
    return (
        count,
        *(cohort["flow"][step] for step in FLOW),
        excluded,
        *(cohort["splits"][split]["cases"] for split in SPLITS),
    )


def _classes(cohort: Json) -> list[int]:
    return [
        sum(counts) for counts in zip(*(cohort["splits"][split]["classes"] for split in SPLITS), strict=True)
    ]


def side_by_side(comparison: Comparison) -> Iterator[str]:
    """AUROC with 95% intervals: macro and by class, on all test cases and on each site's."""
    for population in (POOLED, *comparison.sites):
        first = _result(comparison.models[0], population)
        where = "all sites' test images" if population == POOLED else f"test images of {population}"
        yield f"AUROC (95% CI), {where}: {first.cases}"
        rows = [(MACRO, *(spell(_result(model, population).auroc) for model in comparison.models))]
        for k, name in enumerate(comparison.tasks):
            results = [_result(model, population).classes[k] for model in comparison.models]
            rows.append((f"{name} ({results[0].positives})", *(spell(result.auroc) for result in results)))
        yield from table(("class (images)", *(model.name for model in comparison.models)), rows)
        yield ""
    yield from differences(comparison)


def differences(comparison: Comparison) -> Iterator[str]:
    """Federated minus the mean of the local-only models, paired, macro."""
    for found in comparison.differences:
        if (found.a, found.b, found.of) == (FEDERATED, MEAN_OF_LOCAL, comparison.main):
            where = "all sites" if found.cases_of == POOLED else found.cases_of
            yield f"{found.a} minus {found.b}, {found.of}, {where}: {spell_difference(found)}"


def _result(model: ModelResults, population: str) -> Result:
    return model.pooled if population == POOLED else model.sites[population]
