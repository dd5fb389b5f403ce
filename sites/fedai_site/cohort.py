"""Which cases of the site a study uses, and in which split. Reads the catalogue only; opens no image."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fedai.cohort_rules import FILTERS
from fedai.errors import DataError
from fedai.study import OUTLINED, Segmentation
from fedai.wire import FLOW
from fedai_site.catalogue import DUPLICATE, MASK, WRITTEN, Catalogue, LabelledObject
from fedai_site.consents import EXPIRED, NO_CONSENT, SCOPE, WITHDRAWN, Consents
from fedai_site.masks import Mask, Masks
from fedai_site.quarantine import Reason
from fedai_site.traits import UNKNOWN, Traits

if TYPE_CHECKING:
    from fedai.cohort_rules import CohortRules
    from fedai.study import Study

FILTERED = "filtered"
SPLITS = ("train", "validation", "test")
NO_LABEL, AMBIGUOUS, ELSEWHERE, OTHER_LABEL, OTHER_MODALITY = (
    "unlabelled",
    "ambiguous_key",
    "same_image",
    "label_not_in_study",
    "modality",
)
CONSENT_REASONS = (NO_CONSENT, EXPIRED, SCOPE)
TAKEN = (WRITTEN, DUPLICATE, Reason.SUPERSEDED, Reason.WITHDRAWN)
PIXEL_REASONS = frozenset({Reason.PIXEL_SIZE, Reason.UNDECODABLE})


@dataclass(frozen=True)
class Case:
    """One labelled image: its id and its patient's pseudonym, the class index, the clean file and that file's
    SHA-256. Of a segmentation its mask, and by structure whether that is there: 2 * number + 1 if so. `word`:
    the label in the site's own words, whatever number or order a study gives its classes.

    `traits` are not what a case is known by: they may be read anew.
    """

    id: str
    patient: str
    label: int
    path: Path
    sha256: str
    mask: Mask | None = None
    parts: tuple[int, ...] = ()
    word: str = ""
    traits: Traits = field(default=UNKNOWN, compare=False, repr=False)

    @property
    def content(self) -> str:
        """What changes with the image or its mask."""
        return f"{self.sha256}/{self.mask.sha256}" if self.mask else self.sha256

    @property
    def kinds(self) -> tuple[int, ...]:
        """What few patients may have in common: the class, or each structure's being there or not."""
        return self.parts or (self.label,)


@dataclass(frozen=True)
class Cohort:
    """What a study uses of a site, and what it doesn't, counted in images.

    flow: found >= deidentified >= consented >= labelled >= eligible >= used. excluded: quarantined,
    unreadable_pixels, duplicate, withdrawn (found but not deidentified, or not any more), no_consent,
    consent_expired, consent_scope, unlabelled; ambiguous_key, same_image (another patient has the very same
    pixels: whose they are isn't known), label_not_in_study, modality and the other filters of the cohort
    (labelled, but not eligible). quarantined: the first two by reason code. splits: the used cases; a patient
    is in one split.
    """

    flow: dict[str, int]
    excluded: dict[str, int]
    quarantined: dict[str, int]
    splits: dict[str, tuple[Case, ...]]

    @property
    def told(self) -> dict[str, int]:
        """`excluded` as the coordinator learns it: the filters but the modality together."""
        others = {why: n for why, n in self.excluded.items() if why not in FILTERS}
        filtered = sum(self.excluded.get(name, 0) for name in FILTERS)
        return others | ({FILTERED: filtered} if filtered else {})


def select(home: Path, study: Study, *, consent_required: bool = False) -> Cohort:
    """The study's cohort at this site; opens the catalogue, no image.

    Consent that is on record is always honoured; `consent_required` leaves out patients without any. Raises
    DataError for an object without evidence. A patient keeps its split when data are added or taken away:
    assignments are stored by the study's name, seed and fractions.
    """
    with Consents(home) as consents:
        objections = consents.objections(study, required=consent_required)
    masks = _masks(home, study)
    with Catalogue(home / "catalogue.sqlite") as catalogue:
        states, entries = catalogue.states(), catalogue.labelled()
        del states[MASK]  # files of outlines are no images
        if isinstance(study.task, Segmentation):
            entries = [_masked(entry, masks.get(entry.id)) for entry in entries]
        _check_evidence(entries)
        reasons = [objections.get(entry.patient) or _reason(entry, study) for entry in entries]
        cases = [
            _case(home, entry, study, masks.get(entry.id))
            for entry, reason in zip(entries, reasons, strict=True)
            if not reason
        ]
        splits = _splits(catalogue, cases, study)
    quarantined = {state: n for state, n in sorted(states.items()) if state not in TAKEN}
    excluded = Counter(reason for reason in reasons if reason)
    flow = _flow(states.total(), len(entries), excluded, len(cases))
    for state, n in states.items():
        excluded[_group(state)] += n
    del excluded[WRITTEN]
    return Cohort(flow, dict(sorted((+excluded).items())), quarantined, splits)


def _check_evidence(entries: Sequence[LabelledObject]) -> None:
    """No object is trained on without a record of its cleaning; the bytes are checked when they are read."""
    without = sum(not entry.has_evidence for entry in entries)
    if without:
        raise DataError(
            f"{without} clean files have no evidence that fits them",
            hint="run `fedai site add-data` again on their source",
        )


def _group(state: str) -> str:
    if state == WRITTEN:
        return WRITTEN
    if state in (DUPLICATE, Reason.SUPERSEDED, Reason.WITHDRAWN):
        return WITHDRAWN if state == Reason.WITHDRAWN else "duplicate"
    return "unreadable_pixels" if state in PIXEL_REASONS else "quarantined"


def _flow(found: int, objects: int, excluded: Counter[str], used: int) -> dict[str, int]:
    deidentified = objects - excluded[WITHDRAWN]  # of which the files are on their way out
    consented = deidentified - sum(excluded[reason] for reason in CONSENT_REASONS)
    steps = (found, deidentified, consented, consented - excluded[NO_LABEL], used, used)
    return dict(zip(FLOW, steps, strict=True))


def _reason(entry: LabelledObject, study: Study) -> str | None:
    if entry.label is None:
        return NO_LABEL
    if entry.ambiguous:
        return AMBIGUOUS
    if entry.label not in study.task.classes:
        return OTHER_LABEL
    if entry.elsewhere:
        return ELSEWHERE
    wanted = study.cohort.modality
    if wanted and entry.modality not in wanted:
        return OTHER_MODALITY
    return next(filtered_by(entry.traits, study.cohort), None)


def filtered_by(traits: Traits, rules: CohortRules) -> Iterator[str]:
    """The filters that an image doesn't pass, by their names; what isn't known passes none."""
    for name in ("body_part", "manufacturer"):
        wanted = getattr(rules, name)
        if wanted and getattr(traits, name) not in wanted:
            yield name
    spans = (
        ("slice_thickness_mm", traits.slice_thickness_mm),
        ("age_years", traits.age_years),
        ("study_years", traits.study_year),
    )
    for name, value in spans:
        span = getattr(rules, name)
        if span and (value is None or not span.at_least <= value <= span.at_most):
            yield name


def _masks(home: Path, study: Study) -> dict[str, Mask]:
    """Clean SOP Instance UID -> mask, of those that speak of all of the study's structures."""
    if not isinstance(study.task, Segmentation):
        return {}
    wanted = set(study.task.structures)
    with Masks(home / "catalogue.sqlite") as masks:
        return {image: mask for image, mask in masks.all().items() if wanted <= set(mask.structures)}


def _masked(entry: LabelledObject, mask: Mask | None) -> LabelledObject:
    """What an image's mask makes of it: labelled by whether anything is outlined, or unlabelled."""
    return replace(entry, label=None if mask is None else OUTLINED[bool(mask.present)], ambiguous=0)


def _case(home: Path, entry: LabelledObject, study: Study, mask: Mask | None) -> Case:
    path = home / entry.path
    if isinstance(study.task, Segmentation) and mask is not None:
        there = [name in mask.present for name in study.task.structures]
        parts = tuple(2 * number + is_there for number, is_there in enumerate(there))
        word = ",".join(sorted(mask.present))
        return Case(
            entry.id, entry.patient, int(any(there)), path, entry.sha256, mask, parts, word, entry.traits
        )
    word = entry.label or ""
    label = study.task.classes.index(word)
    return Case(entry.id, entry.patient, label, path, entry.sha256, word=word, traits=entry.traits)


def _splits(catalogue: Catalogue, cases: Sequence[Case], study: Study) -> dict[str, tuple[Case, ...]]:
    split = study.split
    fractions = {
        "train": 1 - split.validation - split.test,
        "validation": split.validation,
        "test": split.test,
    }
    plan = study.split_plan
    before = catalogue.splits(plan)
    catalogue.assign(plan, assign(strata(cases), before, fractions, split.seed, catalogue.alike()))
    assigned = catalogue.splits(plan)
    return {name: tuple(case for case in cases if assigned[case.patient] == name) for name in SPLITS}


def strata(cases: Sequence[Case]) -> dict[str, int]:
    """Patient -> the class, among those of its cases, that fewest patients of the cohort have."""
    classes: defaultdict[str, set[int]] = defaultdict(set)
    for case in cases:
        classes[case.patient].add(case.label)
    patients = Counter(label for labels in classes.values() for label in labels)
    return {
        patient: min(labels, key=lambda label: (patients[label], -label))
        for patient, labels in classes.items()
    }


def assign(
    stratum: Mapping[str, int],
    before: Mapping[str, str],
    fractions: Mapping[str, float],
    seed: int,
    alike: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """New patients' splits.

    Within each stratum, in the order of a seeded hash, a patient goes where most are missing. `alike`:
    patient -> the name of a group that may be one person; a new one goes where the first of its group is.
    """
    alike = alike or {}
    counts: defaultdict[int, Counter[str]] = defaultdict(Counter)
    together: dict[str, str] = {}
    for patient, split in sorted(before.items()):
        if patient in alike:
            together.setdefault(alike[patient], split)
        if patient in stratum:
            counts[stratum[patient]][split] += 1
    added: dict[str, str] = {}
    for patient in sorted(stratum.keys() - before.keys(), key=lambda name: _order(name, seed)):
        here = counts[stratum[patient]]
        total = here.total() + 1
        split = max(SPLITS, key=lambda name: fractions[name] * total - here[name])
        if patient in alike:
            split = together.setdefault(alike[patient], split)
        added[patient] = split
        here[split] += 1
    return added


def _order(patient: str, seed: int) -> bytes:
    return sha256(f"{seed}/{patient}".encode()).digest()
