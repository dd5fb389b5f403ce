"""What `fedai site data list | show | stats` tell of the catalogue; for eyes inside the hospital."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from fedai.errors import ConfigError
from fedai_site.catalogue import Catalogue, LabelledObject
from fedai_site.labels import Reading
from fedai_site.masks import Mask, Masks

UNKNOWN = "(not known)"
BAND_YEARS = 10


def listing(entries: Sequence[LabelledObject]) -> list[dict[str, Any]]:
    """One row per patient: how many images, of what, with which labels."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        row = rows.setdefault(
            entry.patient,
            {"patient": entry.patient, "images": 0, "modality": set(), "body_part": set(), "label": set()},
        )
        row["images"] += 1
        row["modality"].add(entry.modality or UNKNOWN)
        row["body_part"].add(entry.traits.body_part or UNKNOWN)
        row["label"].add(entry.label or "(none)")
    return [
        {name: sorted(value) if isinstance(value, set) else value for name, value in row.items()}
        for row in rows.values()
    ]


def shown(home: Path, name: str) -> dict[str, Any]:
    """All that is kept of a patient (by pseudonym) or an object (by its clean SOP Instance UID).

    Raises ConfigError where there is none.
    """
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        entries = [entry for entry in catalogue.labelled() if name in (entry.patient, entry.id)]
        plans = catalogue.plans(entries[0].patient) if entries else {}
        said = {entry.id: catalogue.readings(entry.id) for entry in entries}
    with Masks(home / "catalogue.sqlite") as known:
        masks = known.all()
    if not entries:
        raise ConfigError(
            f"the catalogue has no patient and no image {name}", hint="names are in: fedai site data list"
        )
    images = [_image(entry, said[entry.id], masks.get(entry.id)) for entry in entries]
    return {"patient": entries[0].patient, "splits": plans, "images": images}


def _image(entry: LabelledObject, said: Sequence[Reading], mask: Mask | None) -> dict[str, Any]:
    evidence = json.loads(entry.evidence)
    traits = {name: value for name, value in vars(entry.traits).items() if name not in ("image", "looks")}
    outlined = {"mask": mask.path, "structures": ", ".join(mask.structures)} if mask else {}
    cut = {"mask_pixels_cut": mask.cut} if mask and mask.blanked else {}
    return {
        "id": entry.id,
        "path": entry.path,
        "label": entry.label,
        "reader": entry.reader,
        "source": entry.source,
        "readings": [_reading(one) for one in said],
        "modality": entry.modality,
        **traits,
        "sha256": entry.sha256,
        "profile": evidence.get("profile"),
        "has_evidence": entry.has_evidence,
        **outlined,
        **cut,
    }


def _reading(one: Reading) -> dict[str, str]:
    return {"of": one.kind, "reader": one.reader, "source": one.source, "label": one.label}


def agreement(readings: Sequence[Reading]) -> dict[str, list[dict[str, Any]]]:
    """`readers`: how many keys each one labelled. `pairs`: of each two, how many keys both labelled, on how
    many they agree, and Cohen's kappa (Educ Psychol Meas 1960;20:37), None where both said one thing only.
    """
    said: defaultdict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for one in readings:
        said[one.reader][one.kind, one.key] = one.label
    pairs = [_pair(*two, said) for two in combinations(sorted(said), 2)]
    counts = [{"reader": reader, "labels": len(labels)} for reader, labels in sorted(said.items())]
    return {"readers": counts, "pairs": [pair for pair in pairs if pair["both"]]}


def _pair(first: str, second: str, said: Mapping[str, Mapping[tuple[str, str], str]]) -> dict[str, Any]:
    both = said[first].keys() & said[second].keys()
    one, other = (Counter(said[reader][key] for key in both) for reader in (first, second))
    agreeing = sum(said[first][key] == said[second][key] for key in both)
    by_chance = sum(one[label] * other[label] for label in one)
    left = len(both) ** 2 - by_chance
    kappa = (agreeing * len(both) - by_chance) / left if left else None
    return {"first": first, "second": second, "both": len(both), "agreeing": agreeing, "kappa": kappa}


def statistics(entries: Sequence[LabelledObject]) -> dict[str, dict[str, int]]:
    """Counts of images by what a study may filter by, and by label."""
    columns = {
        "modality": [entry.modality or UNKNOWN for entry in entries],
        "body_part": [entry.traits.body_part or UNKNOWN for entry in entries],
        "manufacturer": [entry.traits.manufacturer or UNKNOWN for entry in entries],
        "sex": [entry.traits.sex or UNKNOWN for entry in entries],
        "age_years": [_band(entry.traits.age_years) for entry in entries],
        "study_year": [str(entry.traits.study_year or UNKNOWN) for entry in entries],
        "slice_thickness_mm": [_rounded(entry.traits.slice_thickness_mm) for entry in entries],
        "spacing_mm": [_rounded(entry.traits.spacing_mm) for entry in entries],
        "label": [entry.label or "(none)" for entry in entries],
        "label_source": [entry.source or UNKNOWN for entry in entries if entry.label is not None],
    }
    return {name: dict(sorted(Counter(values).items())) for name, values in columns.items()}


def _band(age: int | None) -> str:
    if age is None:
        return UNKNOWN
    start = age // BAND_YEARS * BAND_YEARS
    return f"{start} and older" if start >= 90 else f"{start} to {start + BAND_YEARS - 1}"


def _rounded(length: float | None) -> str:
    return UNKNOWN if length is None else f"{length:.2g}"
