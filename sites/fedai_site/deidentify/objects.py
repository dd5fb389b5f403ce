"""One object all the way: bytes in, clean bytes and their evidence out, or Quarantine.

Header first, then pixels; whatever may show a face waits (`held`) until its whole series is there, see
volumes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from fedai.errors import ConfigError
from fedai_site import decoding
from fedai_site.deidentify import reading
from fedai_site.deidentify.engine import Cleaned, Deidentifier, sop_class_of, transfer_syntax, write
from fedai_site.deidentify.evidence import Evidence, gather
from fedai_site.deidentify.profile import Profile
from fedai_site.deidentify.pseudonyms import Pseudonyms, load_secret
from fedai_site.deidentify.walk import is_well_known
from fedai_site.quarantine import Quarantine, Reason

PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)
PARENTS = ("StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class Settings:
    """How objects are cleaned. Either `key` (a file of 32 bytes) or `vault` (a folder) names patients.

    `pixels`: search them for text. `faces`: remove them from head volumes. `board_decision`: the review
    board's number by which faces stay; it goes into the evidence.
    """

    profile: Profile
    key: Path | None = None
    vault: Path | None = None
    project: str = ""
    pixels: bool = True
    faces: bool = True
    board_decision: str = ""

    def check(self) -> None:
        """Raises ConfigError for settings that contradict each other."""
        if (self.key is None) == (self.vault is None):
            raise ConfigError("give a key or a vault, not both", hint="--key FILE or --vault FOLDER")
        if self.vault is not None and self.project:
            raise ConfigError("a vault has one set of names", hint="make a vault for each project")


@dataclass(frozen=True)
class CleanObject:
    """A clean file's bytes with its evidence (path still to come), and who and what it belongs to.

    All names are pseudonyms. `held`: its series may show a face, so that it can't be given out by itself.
    """

    data: bytes
    evidence: Evidence
    patient: str
    study: str
    series: str
    instance: str
    held: bool


@lru_cache(maxsize=4)
def deidentifier(settings: Settings) -> Deidentifier:
    """The engine with its names, made once per process and settings. Raises ConfigError."""
    return Deidentifier(names_of(settings), settings.profile)


def names_of(settings: Settings) -> Pseudonyms:
    """Where pseudonyms come from under these settings. Raises ConfigError."""
    settings.check()
    if settings.vault is not None:
        from fedai_site.deidentify.vault import VaultPseudonyms

        return VaultPseudonyms(settings.vault)
    assert settings.key is not None
    return Pseudonyms(load_secret(settings.key), settings.project)


def clean_object(data: bytes, settings: Settings, review: Mapping[str, Any] | None = None) -> CleanObject:
    """Clean one DICOM file, given as its bytes. `review` is a person's decision about this very file.

    Raises Quarantine for whatever isn't certainly clean.
    """
    return clean_dataset(reading.parse(data), data, settings, review)


def clean_dataset(
    original: Dataset, data: bytes, settings: Settings, review: Mapping[str, Any] | None = None
) -> CleanObject:
    """As `clean_object`, for a file that has been parsed already."""
    if review and review.get("decision") == "refuse":
        raise Quarantine(Reason(review["about"]), "a person has looked and refused it")
    kind = sop_class_of(original)
    if kind and not is_well_known(kind):
        raise Quarantine(Reason.UNKNOWN_SOP_CLASS)
    cleaned = deidentifier(settings).clean(original)
    found = _pixels(original, cleaned, data, settings, review) if settings.pixels else None
    evidence = gather(
        cleaned,
        settings.profile,
        input_sha256=sha256(data).hexdigest(),
        pixels=found,
        face=None if settings.faces else _kept_by(settings.board_decision),
        review=_outcome_of(review),
    )
    clean = finish(cleaned, evidence, held=_may_show_a_face(original, settings))
    if (
        settings.pixels
        and _has_another_stream(original, cleaned)
        and not decoding.decodes(clean.data, stored=True)
    ):
        raise Quarantine(Reason.PIXELS_NOT_EXAMINED, "a stream that no decoder reads once it is cleaned")
    return clean


def _has_another_stream(original: Dataset, cleaned: Cleaned) -> bool:
    """Whether coded pixels are not the bytes any more that were decoded before."""
    if not transfer_syntax(cleaned.dataset).is_encapsulated:
        return False
    return any(
        original[tag].value != cleaned.dataset[tag].value for tag in PIXEL_DATA if tag in cleaned.dataset
    )


def has_release(review: Mapping[str, Any] | None, reason: Reason) -> bool:
    """Whether a person has released a file that was in quarantine for this reason."""
    if not review or review["decision"] != "release":
        return False
    return reason in (review["about"], *review.get("before", ()))


def _outcome_of(review: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the evidence says of a person's decision: not who took it and why, which stays in private."""
    return (
        {name: review[name] for name in ("decision", "about", "time") if name in review} if review else None
    )


def _kept_by(decision: str) -> dict[str, str] | None:
    return {"outcome": "kept", "board_decision": decision} if decision else None


def finish(cleaned: Cleaned, evidence: Evidence, *, held: bool) -> CleanObject:
    """Encode a cleaned data set and put its hash into the evidence. Raises Quarantine."""
    data = write(cleaned)
    evidence = replace(evidence, output_sha256=sha256(data).hexdigest())
    instance = instance_of(cleaned.dataset, evidence.input_sha256)
    study, series = (str(cleaned.dataset.get(name) or "none") for name in PARENTS)
    return CleanObject(data, evidence, cleaned.patient, study, series, instance, held)


def instance_of(dataset: Dataset, input_sha256: str) -> str:
    """What a clean object is called: its SOP Instance UID, or without one a name from the input's hash."""
    return str(dataset.get("SOPInstanceUID") or f"unnamed-{input_sha256[:20]}")


def _pixels(
    original: Dataset, cleaned: Cleaned, data: bytes, settings: Settings, review: Mapping[str, Any] | None
) -> Any:
    from fedai_site.deidentify.pixels import PixelFacts, clean_pixels

    if not any(tag in cleaned.dataset for tag in PIXEL_DATA):
        return None
    if transfer_syntax(original).is_compressed and not decoding.decodes(data, stored=True):
        raise Quarantine(Reason.PIXELS_NOT_EXAMINED)
    try:
        return clean_pixels(cleaned.dataset, PixelFacts.of(original))
    except Quarantine as error:
        seen = int(original.get("NumberOfFrames") or 1) == 1  # of several frames the picture shows one
        if error.reason is Reason.TEXT_LEFT and seen and has_release(review, Reason.TEXT_LEFT):
            return None
        raise


def _may_show_a_face(original: Dataset, settings: Settings) -> bool:
    if not settings.faces:
        return False
    from fedai_site.deidentify.faces import may_show_head

    return may_show_head(original)
