"""Takes over what segmentations and structure sets outline on clean images, as masks of these.

Originals are opened here, behind the same walls as images: what comes of them are labels by pixel. What was
blanked in an image is cut out of its mask, whichever of the two came first.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from fedai_site import archives
from fedai_site.deidentify import reading
from fedai_site.deidentify.drawn import kind_of, outlines, spoken_of
from fedai_site.deidentify.engine import Deidentifier
from fedai_site.deidentify.grids import Grid, grid_of
from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.run import OUTLINES
from fedai_site.deidentify.segments import Outlined
from fedai_site.deidentify.state import MASK, Source, State, Written
from fedai_site.masks import (
    MASKS,
    MOST_LABELS,
    Box,
    Labels,
    Mask,
    Masks,
    drop_orphans,
    is_intact,
    read_labels,
    without,
    write,
)
from fedai_site.quarantine import Quarantine, Reason


def take(
    home: Path, engine: Deidentifier, names: Mapping[str, str], barred: Collection[str], state: State
) -> None:
    """Take over what objects that outline structures say of clean images; each is a mask then, or in
    quarantine with its reason. `names`: name there -> structure. `barred`: see `Job`.
    """
    with Masks(home / "catalogue.sqlite") as masks:
        drop_orphans(home, masks, {written.instance for written in state.objects()})
        known = {digest for mask in masks.all().values() for digest in mask.sources}
        taking = _Pass(home, engine, names, barred, state, masks, known)
        for source in state.in_state(*map(str, OUTLINES)):
            state.note(taking.end_of(source))
        taking.cut_out_what_was_blanked()


@dataclass(frozen=True)
class _Pass:
    """One pass over objects that outline structures."""

    home: Path
    engine: Deidentifier
    names: Mapping[str, str]
    barred: Collection[str]
    state: State
    masks: Masks
    known: Set[str]

    def end_of(self, source: Source) -> Source:
        """What became of one object."""
        try:
            data = archives.read(source.path)
            original = reading.parse(data)
            patient = self._patient_of(original)
            self._take(original, patient, sha256(data).hexdigest())
            return replace(source, state=MASK, detail=patient)
        except Quarantine as error:
            if error.reason is Reason.MISSING:
                return source
            return replace(source, state=str(error.reason), detail=error.detail)

    def _patient_of(self, original: Dataset) -> str:
        """The pseudonym. Raises Quarantine for who withdrew."""
        try:
            patient = self.engine.patient_of(original)
            key = self.engine.pseudonyms.label_key("PatientID", str(original.get("PatientID") or ""))
        except FAULTS as error:
            raise Quarantine(Reason.UNREADABLE, type(error).__name__) from None
        if {patient, key} & set(self.barred):
            raise Quarantine(Reason.WITHDRAWN)
        return patient

    def _take(self, original: Dataset, patient: str, digest: str) -> None:
        """All of it or nothing. What was taken over before stays, if nobody says now how else to read it."""
        kind, spoken = kind_of(original), spoken_of(original, self.names)
        if not spoken and digest in self.known:
            return
        if not spoken:
            raise Quarantine(Reason.SEGMENTATION)
        grids = cache(lambda image: self._grid(image, patient))
        found = outlines(original, self.names, lambda image: grids(image)[1], self.engine.uid_of)
        made = []
        for image, outlined in found.items():
            written, grid = grids(image)
            before = self._before(written.instance, digest)
            labels, structures = _joined(self._labels(before, grid), before, outlined, spoken)
            whole = _recorded(written, grid, before, structures, {digest: (kind, spoken)})
            made.append(without(labels, whole, blanked_in(written)))
        self._keep(made)

    def _keep(self, made: Iterable[tuple[Labels, Mask]]) -> None:
        made = list(made)
        for labels, mask in made:
            write(self.home / mask.path, labels)
        self.masks.keep(mask for _, mask in made)

    def cut_out_what_was_blanked(self) -> None:
        """Also where an image was cleaned anew after its mask was made, and what outlined it is gone."""
        masks = self.masks.all()
        for written in self.state.objects():
            mask = masks.get(written.instance)
            boxes = blanked_in(written) if mask else ()
            if mask and not {*boxes} <= {*mask.blanked} and is_intact(self.home, mask):
                self._keep([without(read_labels(self.home / mask.path), mask, boxes)])

    def _grid(self, image: str, patient: str) -> tuple[Written, Grid]:
        """The clean object of an original image of the patient, and its grid."""
        written = self.state.instance(self.engine.uid_of(image))
        if written is None:
            raise Quarantine(Reason.MASK_WITHOUT_IMAGE)
        if written.patient != patient:
            raise Quarantine(Reason.MASK_MISFIT, "its image is another patient's")
        return written, grid_of((self.home / "clean" / written.path).read_bytes())

    def _before(self, image: str, digest: str) -> Mask | None:
        """The image's mask from other objects; none where this one was a part of it, or its file is gone."""
        mask = self.masks.find(image)
        if mask is None or digest in mask.sources or not is_intact(self.home, mask):
            return None
        return mask

    def _labels(self, before: Mask | None, grid: Grid) -> Labels:
        if before is None:
            return np.zeros((grid.rows, grid.columns), np.uint8)
        return read_labels(self.home / before.path)


def blanked_in(written: Written) -> tuple[Box, ...]:
    """The boxes over text that were blanked in a clean image of one frame, by its evidence."""
    pixels = json.loads(written.evidence).get("pixels") or {}
    return tuple((int(a), int(b), int(c), int(d)) for of in pixels.get("boxes", ()) for a, b, c, d in of)


def _joined(
    labels: Labels, before: Mask | None, outlined: Outlined, spoken: tuple[str, ...]
) -> tuple[Labels, tuple[str, ...]]:
    """The labels with what is outlined put in, and their structures' names. Raises Quarantine."""
    known = before.structures if before else ()
    if set(known) & set(spoken):
        raise Quarantine(Reason.MASK_CONFLICT, "another object outlines the same structure on the image")
    structures, joined = (*known, *spoken), labels.copy()
    if len(structures) > MOST_LABELS:
        raise Quarantine(Reason.MASK_CONFLICT, "more structures on one image than are kept")
    for name, pixels in outlined.structures.items():
        if (labels[pixels] > 0).any():
            raise Quarantine(Reason.MASK_CONFLICT, "another object's structure has one of the pixels")
        joined[pixels] = structures.index(name) + 1
    return joined, structures


def _recorded(
    written: Written,
    grid: Grid,
    before: Mask | None,
    structures: tuple[str, ...],
    source: Mapping[str, tuple[str, tuple[str, ...]]],
) -> Mask:
    """All but what follows from the labels, which `without` sees to."""
    return Mask(
        image=written.instance,
        patient=written.patient,
        path=f"{MASKS}/{written.patient}/{written.instance}.npy",
        sha256="",
        size=(grid.rows, grid.columns),
        spacing=grid.spacing,
        structures=structures,
        present=(),
        sources={**(before.sources if before else {}), **source},
        blanked=before.blanked if before else (),
        cut=before.cut if before else 0,
    )
