"""What a segmentation's run answers of the checklists where a classification's says something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedai.cohort_rules import CohortRules
from fedai.outline_results import OutlineComparison
from fedai.outline_sections import EMPTY_MASKS, INTERVALS, MEASURED_ON, READERS

Json = Mapping[str, Any]


def answers_of_outlines(record: Json, comparison: OutlineComparison) -> dict[str, str]:
    """By the keys of the items."""
    study = record.get("study", {})
    return {**_of_data(study), **_of_model(study), **_of_evaluation(record, comparison)}


def _of_data(study: Json) -> dict[str, str]:
    shape = " x ".join(map(str, study.get("preprocessing", {}).get("image_size", []))) or "the study's size"
    asked = CohortRules.model_validate(study.get("cohort", {})).words
    return {
        "eligibility": f"Images ({asked}) with a mask that speaks of every structure; exclusions by reason "
        "are under “Which images were used”.",
        "preprocessing": f"Percentile window and resizing to {shape}, then mean 0 and standard deviation 1; "
        "masks are brought to the same pixel grid.",
        "missing": "Images without a mask, with one that doesn't speak of every structure, or whose pixels "
        "can't be read are left out and counted.",
        "partition": "At random by a hash of the pseudonym, stratified by whether anything is outlined, "
        "within each site, before training.",
        "annotations": "The sites' own masks, from DICOM SEG and RTSTRUCT files, by names that each site "
        "matched with the structures; who drew them, and how: for the authors.",
        "outcome": "Each pixel's structure, by the sites' own masks; who drew them, and how: for the "
        "authors.",
        "readers": f"Not measured: {READERS[0].lower()}{READERS[1:]}",
    }


def _of_model(study: Json) -> dict[str, str]:
    training, name = study.get("training", {}), study.get("network", {}).get("name")
    if not training:
        return {}
    loss = training.get("loss", {})
    counted = "counts in it like a structure" if loss.get("include_background") else "is left out of it"
    overlap = f"By the Dice part of the loss ({loss.get('name')}), which is of overlap; background {counted}."
    return {
        "network": f"{name}: one grey image in, for each pixel a score for background and one for each "
        "structure out; see the study.",
        "imbalance": overlap if "Dice" in str(loss.get("name")) else "Not treated.",
    }


def _of_evaluation(record: Json, comparison: OutlineComparison) -> dict[str, str]:
    several = len(comparison.sites) > 1
    return {
        "measures": f"Dice, NSD at {comparison.tolerance_mm:g} mm, HD95 and area error, {MEASURED_ON}, "
        f"case by case; paired differences against {comparison.against}. {EMPTY_MASKS}",
        "uncertainty": f"{INTERVALS} p adjusted by Holm's method.",
        "sites": "By site, worst site, random effects over sites." if several else "",
        "performance": "Under “How well each model outlines” and “The numbers”.",
        "output": f"For each pixel the likeliest of background and {', '.join(comparison.structures)}; no "
        "threshold.",
        "failures": "How often the model or the reference alone outlines a structure is in “Who outlines "
        "what”; a look at such images: for the authors.",
    }
