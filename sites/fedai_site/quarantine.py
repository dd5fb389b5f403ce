"""Why an object isn't used: one code for each reason, in words, with what would free it.

Only codes and counts of them ever leave the site; the paths they belong to stay in the catalogue.
"""

from __future__ import annotations

from enum import StrEnum

from fedai.errors import DataError


class Reason(StrEnum):
    """Codes of the quarantine. A code never says which patient or file it is about."""

    NOT_DICOM = "NOT_DICOM"
    UNREADABLE = "UNREADABLE"
    TRUNCATED = "TRUNCATED"
    TOO_LARGE = "TOO_LARGE"
    DICOMDIR = "DICOMDIR"
    NO_IDENTITY = "NO_IDENTITY"
    UNKNOWN_SOP_CLASS = "UNKNOWN_SOP_CLASS"
    UNSUPPORTED_SYNTAX = "UNSUPPORTED_SYNTAX"
    ENCAPSULATED_DOCUMENT = "ENCAPSULATED_DOCUMENT"
    STRUCTURED_REPORT = "STRUCTURED_REPORT"
    NO_PIXELS = "NO_PIXELS"
    PIXEL_SIZE = "PIXEL_SIZE"
    UNDECODABLE = "UNDECODABLE"
    OVERLAY_IN_PIXELS = "OVERLAY_IN_PIXELS"
    UID_REUSED = "UID_REUSED"
    CONFLICT = "CONFLICT"
    SUPERSEDED = "SUPERSEDED"
    MISSING = "MISSING"
    VIDEO = "VIDEO"
    TEXT_LEFT = "TEXT_LEFT"
    PIXELS_NOT_EXAMINED = "PIXELS_NOT_EXAMINED"
    FACE_LEFT = "FACE_LEFT"
    SUSPICIOUS_CONTENT = "SUSPICIOUS_CONTENT"
    WITHDRAWN = "WITHDRAWN"
    SEGMENTATION = "SEGMENTATION"
    MASK_WITHOUT_IMAGE = "MASK_WITHOUT_IMAGE"
    MASK_MISFIT = "MASK_MISFIT"
    MASK_CONFLICT = "MASK_CONFLICT"


WORDS: dict[Reason, tuple[str, str]] = {
    Reason.NOT_DICOM: ("is not a DICOM file", "nothing to do if it isn't meant to be one"),
    Reason.UNREADABLE: ("can't be read or parsed", "export it again from the archive"),
    Reason.TRUNCATED: ("ends before its data set does", "export it again from the archive"),
    Reason.TOO_LARGE: ("is larger than what is read in one piece", "export it in smaller objects"),
    Reason.DICOMDIR: (
        "is a media directory, not an image",
        "nothing: the images it lists are read themselves",
    ),
    Reason.NO_IDENTITY: ("has no SOP Instance UID", "export it again from the archive"),
    Reason.UNKNOWN_SOP_CLASS: (
        "is of a private or unknown kind (SOP Class)",
        "export it as a standard image; what is unknown can't be cleaned with certainty",
    ),
    Reason.UNSUPPORTED_SYNTAX: (
        "is stored in a transfer syntax that isn't read here",
        "let the archive convert it, for example to Explicit VR Little Endian",
    ),
    Reason.ENCAPSULATED_DOCUMENT: ("is a document, not an image", "nothing: documents are not used"),
    Reason.STRUCTURED_REPORT: ("is a structured report, not an image", "nothing: reports are not used"),
    Reason.NO_PIXELS: ("has no pixels", "nothing: only images are used"),
    Reason.PIXEL_SIZE: (
        "has a pixel element whose size doesn't fit its rows, columns and bits",
        "export it again from the archive",
    ),
    Reason.UNDECODABLE: (
        "has pixels that can't be decoded",
        "let the archive convert it to an uncompressed syntax",
    ),
    Reason.OVERLAY_IN_PIXELS: (
        "carries an overlay in the unused bits of its pixels",
        "let the archive export overlays apart or without them",
    ),
    Reason.UID_REUSED: (
        "has the SOP Instance UID of another patient's object",
        "correct the identifiers in the archive and export both again",
    ),
    Reason.CONFLICT: (
        "differs from another object with the same SOP Instance UID of the same patient",
        "compare the two; to use this one instead, release it with `fedai site deid review`",
    ),
    Reason.SUPERSEDED: (
        "is an older version of an object that the archive has sent again since",
        "nothing: the newer one is used",
    ),
    Reason.MISSING: (
        "is listed, by a media directory or a moment ago, and isn't there",
        "copy the medium or the export again, and whole",
    ),
    Reason.VIDEO: ("is a video", "export still frames: video can't be searched for text with certainty"),
    Reason.TEXT_LEFT: (
        "shows text in its pixels that could not be removed with certainty",
        "look at its picture with `fedai site deid review` and decide",
    ),
    Reason.PIXELS_NOT_EXAMINED: (
        "has pixels that could not be searched for text",
        "let the archive convert it to an uncompressed syntax",
    ),
    Reason.FACE_LEFT: (
        "belongs to a head volume whose face could not be removed with certainty",
        "install the faces extra, or give the review board's decision number",
    ),
    Reason.SUSPICIOUS_CONTENT: (
        "holds content that can't be told from an identifier",
        "mend it in the archive and export it again; a decision alone doesn't free it",
    ),
    Reason.WITHDRAWN: (
        "is of a patient whose consent was withdrawn",
        "nothing, unless the patient gives a new consent (`fedai site consent import --renew`)",
    ),
    Reason.SEGMENTATION: (
        "outlines structures, and none of them was named here",
        'name those to use: `fedai site add-data ... --structure "NAME THERE=structure"`',
    ),
    Reason.MASK_WITHOUT_IMAGE: (
        "outlines structures on an image that isn't here",
        "add the image, then this again",
    ),
    Reason.MASK_MISFIT: (
        "outlines structures that don't fit onto their image",
        "export image and outlines again, together; the detail says what doesn't fit",
    ),
    Reason.MASK_CONFLICT: (
        "outlines what is outlined otherwise already",
        "keep one of the two, or give the structures different names",
    ),
}


class Quarantine(DataError):
    """This object isn't used. `reason` is the code; the text never names the file or the patient.

    `picture` is a PNG for the reviewer's eyes, kept in the site's quarantine and nowhere else.
    """

    def __init__(self, reason: Reason, detail: str = "", picture: bytes | None = None) -> None:
        what, frees = WORDS[reason]
        super().__init__(f"{reason}: the object {what}{f' ({detail})' if detail else ''}", hint=frees)
        self.reason = reason
        self.detail = detail
        self.picture = picture
