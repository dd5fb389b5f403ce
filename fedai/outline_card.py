"""What a model card says of how a segmentation's model does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedai.outline_figures import withheld
from fedai.outline_results import OutlineComparison, OutlineResults, StructureResult
from fedai.outline_sections import EMPTY_MASKS, MEASURED_ON
from fedai.outline_tables import DIGITS, HEADS, spell_mean
from fedai.outlines import FOUND, MEASURES
from fedai.results import Measure, back
from fedai.tables import number, spell, spell_range

FOUND_WORDS = dict(
    zip(FOUND, ("by neither", "by the model alone", "by the reference alone", "by both"), strict=True)
)


def evaluation_of_outlines(
    name: str, comparison: OutlineComparison, known: Mapping[str, str]
) -> dict[str, Any]:
    """Values with intervals by structure, all sites together and each; nothing of a model not judged."""
    model = comparison.model(name)
    if model is None:
        return {}
    told: dict[str, Any] = {
        "cases": f"{sum(model.pooled[0].found.values())} images; {known['internal']}",
        "external": known["external"],
        "tolerance of NSD": f"{comparison.tolerance_mm:g} mm",
        "empty masks": EMPTY_MASKS,
        "measured": MEASURED_ON,
    }
    for s, result in enumerate(model.pooled):
        told[f"{result.name}, all sites: mean (95% CI)"] = dict(_values(result))
        told |= dict(_over_sites(model, s))
        told |= {
            f"{result.name} at {site}: mean (95% CI)": dict(_values(found[s]))
            for site, found in model.sites.items()
        }
    untold = withheld(comparison, name)
    return {
        **told,
        "withheld": untold or "nothing",
        "how": f"{known['measures']} {known['uncertainty']}",
    }


def _values(result: StructureResult) -> Iterator[tuple[str, str]]:
    """Each measure's mean, on how much it is, and median; then who outlines what."""
    for name in MEASURES:
        text = spell_mean(result, name)
        if result.cases[name]:
            text += f"; {result.cases[name]} images of {result.patients[name]} patients"
            text += f", median {number(result.median(name), DIGITS[name])}"
        yield HEADS[name], text
    yield "images outlined", ", ".join(f"{FOUND_WORDS[who]} {count}" for who, count in result.found.items())


def _over_sites(model: OutlineResults, s: int) -> Iterator[tuple[str, str]]:
    effects, left_out = model.across[s]
    structure, lowest = model.pooled[s].name, model.worst(s)
    if effects:
        estimate, ci95, predicted = back(effects)
        text = f"{spell(Measure(estimate, ci95))}, random effects over {effects.sites} sites"
        text += f"; a further hospital {spell_range(predicted)}" if predicted else ""
        text += f"; without {', '.join(left_out)}" if left_out else ""
        yield f"{structure}, sites as a sample: mean Dice (95% CI)", text
    if lowest and len(model.sites) > 1:
        yield f"{structure}, worst site", f"{lowest[0]}: Dice {spell(lowest[1])}"
