"""What is odd about the site's images, found in the catalogue alone: no image is opened.

Each finding is for the site engineer to look at; nothing is left out of a cohort for it but images whose very
pixels another patient has as well (see cohort.py).
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fedai_site.catalogue import LabelledObject
from fedai_site.traits import CONSTANT

ALIKE_BITS = 6  # of 256 that may differ where one image is another one's copy
MOST_COMPARED = 40_000  # images: 0.8 billion pairs, about a minute
ENOUGH = 20  # images of a kind, to say what is usual
INVERTED = 0.38  # of the bits as usual: a negative has them all the other way round
SPACING_FACTOR = 2.0
SPACING_DEVIATIONS = 6.0  # robust: 1.4826 times the median absolute deviation
RARE = 0.05  # of the labelled patients
CHUNK = 512
NAMED = 5  # patients of a group, in words


@dataclass(frozen=True)
class Finding:
    """What is odd, in words, and the objects it is about (SOP Instance UIDs of clean files)."""

    kind: str
    text: str
    objects: tuple[str, ...] = ()


def findings(entries: Sequence[LabelledObject], classes: Sequence[str] = ()) -> list[Finding]:
    """All findings; `classes`: a study's, else those of the labels."""
    known = [entry for entry in entries if entry.traits.looks]
    found = [*_unread(len(entries) - len(known)), *_disputed(entries)]
    found += [*_same(entries), *_alike(known), *_constant(known)]
    for kind, group in sorted(_kinds(known).items()):
        found += [*_inverted(kind, group), *_odd_spacing(kind, group)]
    return [*found, *_not_in_study(entries, classes), *_imbalance(entries, classes)]


def _unread(count: int) -> Iterator[Finding]:
    if count:
        yield Finding("NOT_READ", f"{count} images came in before there were these checks: add them again")


def _disputed(entries: Sequence[LabelledObject]) -> Iterator[Finding]:
    odd = tuple(entry.id for entry in entries if entry.disputed)
    if odd:
        text = f"on {len(odd)} images readers disagree; the newest label counts until one is a consensus"
        yield Finding("LABEL_DISPUTED", text, odd)


def _same(entries: Sequence[LabelledObject]) -> Iterator[Finding]:
    groups = defaultdict(list)
    for entry in entries:
        if entry.elsewhere:
            groups[entry.traits.image].append(entry)
    for group in groups.values():
        patients = sorted({entry.patient for entry in group})
        whose = f"{len(patients)} patients" if len(patients) > 1 else "this patient and one who withdrew"
        text = f"the same pixels under {whose} ({', '.join(patients)}): left out of cohorts"
        yield Finding("SAME_IMAGE", text, tuple(entry.id for entry in group))


def _alike(entries: Sequence[LabelledObject]) -> Iterator[Finding]:
    """Images of different patients that look the same, such as copies with other text in them, in groups."""
    seen = [entry for entry in entries if entry.traits.looks != CONSTANT]
    if len(seen) > MOST_COMPARED:
        text = f"{len(seen)} images are too many to compare how they look, most {MOST_COMPARED}"
        yield Finding("NOT_COMPARED", text)
        return
    for group in _joined(_near(seen), len(seen)):
        members = [seen[place] for place in group]
        patients = sorted({entry.patient for entry in members})
        named = ", ".join(patients[:NAMED]) + (" ..." if len(patients) > NAMED else "")
        text = f"{len(members)} images of {len(patients)} patients look like copies of each other ({named})"
        yield Finding("LOOKS_ALIKE", text, tuple(entry.id for entry in members))


def _near(seen: Sequence[LabelledObject]) -> Iterator[tuple[int, int]]:
    """Pairs of places whose images look the same, of two patients and not pixel by pixel the same."""
    bits = _bits(seen)
    patients = np.array([entry.patient for entry in seen])
    images = np.array([entry.traits.image for entry in seen])
    for start in range(0, len(seen), CHUNK):
        part = slice(start, start + CHUNK)
        apart = np.bitwise_count(bits[part, None] ^ bits[None]).sum(axis=2, dtype=np.int64)
        others = (patients[part, None] != patients[None]) & (images[part, None] != images[None])
        for row, other in np.argwhere((apart <= ALIKE_BITS) & others):
            if start + row < other:
                yield start + int(row), int(other)


def _joined(pairs: Iterable[tuple[int, int]], size: int) -> list[list[int]]:
    """The groups that pairs make of the places from 0 to `size`."""
    links = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    if not len(links):
        return []
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(size, size))
    group_of = connected_components(graph, directed=False)[1]
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for place in sorted(set(links.ravel().tolist())):
        groups[int(group_of[place])].append(place)
    return list(groups.values())


def _bits(entries: Sequence[LabelledObject]) -> NDArray[np.uint64]:
    """uint64 [images, 4]."""
    data = b"".join(bytes.fromhex(entry.traits.looks) for entry in entries)
    return np.frombuffer(data, dtype=np.uint64).reshape(len(entries), 4)


def _constant(entries: Sequence[LabelledObject]) -> Iterator[Finding]:
    blank = tuple(entry.id for entry in entries if entry.traits.looks == CONSTANT)
    if blank:
        yield Finding("CONSTANT", f"{len(blank)} images have one value everywhere", blank)


def _kinds(entries: Sequence[LabelledObject]) -> dict[str, list[LabelledObject]]:
    """Images by modality and body part."""
    groups = defaultdict(list)
    for entry in entries:
        groups[f"{entry.modality} {entry.traits.body_part}".strip() or "unknown modality"].append(entry)
    return groups


def _inverted(kind: str, group: Sequence[LabelledObject]) -> Iterator[Finding]:
    """Negatives: their grid cells go the other way than in most images of the kind."""
    seen = [entry for entry in group if entry.traits.looks != CONSTANT]
    if len(seen) < ENOUGH:
        return
    bits = np.unpackbits(_bits(seen).view(np.uint8), axis=1)
    usual = bits.mean(axis=0) > 1 / 2
    agreeing = (bits == usual).mean(axis=1)
    odd = tuple(entry.id for entry, share in zip(seen, agreeing, strict=True) if share < INVERTED)
    if odd:
        text = f"{len(odd)} of {len(seen)} {kind} images look like negatives: is their photometry wrong?"
        yield Finding("NEGATIVE", text, odd)


def _odd_spacing(kind: str, group: Sequence[LabelledObject]) -> Iterator[Finding]:
    for name, text in (("spacing_mm", "pixel spacing"), ("slice_thickness_mm", "slice thickness")):
        having = [
            (entry, float(value)) for entry in group if (value := getattr(entry.traits, name)) is not None
        ]
        if len(having) < ENOUGH:
            continue
        logs = np.log([value for _, value in having])
        apart = np.abs(logs - np.median(logs))
        limit = max(np.log(SPACING_FACTOR), SPACING_DEVIATIONS * 1.4826 * float(np.median(apart)))
        odd = [entry for (entry, _), distance in zip(having, apart, strict=True) if distance > limit]
        if odd:
            usual = float(np.exp(np.median(logs)))
            said = (
                f"{len(odd)} of {len(having)} {kind} images have a {text} far from the usual {usual:.3g} mm"
            )
            yield Finding("SPACING", said, tuple(entry.id for entry in odd))


def _not_in_study(entries: Sequence[LabelledObject], classes: Sequence[str]) -> Iterator[Finding]:
    """Labels that are none of the study's classes: their images take no part in it."""
    odd = defaultdict(list)
    for entry in entries:
        if classes and entry.label is not None and entry.label not in classes:
            odd[entry.label].append(entry.id)
    for label, objects in sorted(odd.items()):
        near = difflib.get_close_matches(label.lower(), [name.lower() for name in classes], n=1)
        meant = [name for name in classes if name.lower() in near][:1]
        known = f"did you mean {meant[0]}?" if meant else f"it has {', '.join(classes)}"
        text = f"{label!r}, the label of {len(objects)} images, is no class of the study: {known}"
        yield Finding("LABEL_NOT_IN_STUDY", text, tuple(objects))


def _imbalance(entries: Sequence[LabelledObject], classes: Sequence[str]) -> Iterator[Finding]:
    patients: defaultdict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.label is not None:
            patients[entry.label].add(entry.patient)
    counts = Counter({label: len(patients[label]) for label in classes or sorted(patients)})
    for label, count in counts.items():
        if counts.total() and count < RARE * counts.total():
            yield Finding("IMBALANCE", f"{label!r} has {count} of {counts.total()} labelled patients")
