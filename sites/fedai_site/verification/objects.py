"""One file of the folder, read once: its structure, attributes, claims, bytes and decoded pixels."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fedai_site.verification.attributes import check_attributes
from fedai_site.verification.claims import check_claims, read_claims
from fedai_site.verification.elements import standard_vr
from fedai_site.verification.findings import Finding, Severity
from fedai_site.verification.identities import PATIENT, Identity, identify
from fedai_site.verification.index import Index
from fedai_site.verification.part10 import Part10, is_part10, take_apart
from fedai_site.verification.pictures import FAULTS, LARGEST_DECODED, decoded, decoded_size, is_packed
from fedai_site.verification.scanning import Context, scan_buffer, scan_bytes, scan_elements, scan_text

BYTE = re.compile(r" at (byte \d+)")
MOST_FINDINGS = 500
STRUCTURE = "file structure"


@dataclass(frozen=True)
class Reading:
    """What one file gave. `identity` is None if it is no DICOM object that could be read to its end."""

    file: str
    size: int
    identity: Identity | None
    findings: tuple[Finding, ...]
    decoded_bytes: int = 0


def read_object(path: Path, file: str, index: Index, *, decode: bool = True) -> Reading:
    """Read one file. Never raises for its content."""
    named = tuple(scan_text(file, Context(index, file), "file name"))
    try:
        size = path.stat().st_size
        if size < 132:
            return Reading(file, size, None, (*named, _violation("isn't a DICOM file", file)))
        with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            reading = _read(bytes(mapped), path, file, index, named, decode)
    except OSError as error:
        return Reading(file, 0, None, (*named, _violation(f"can't be opened: {type(error).__name__}", file)))
    return reading


def _read(
    raw: bytes, path: Path, file: str, index: Index, named: tuple[Finding, ...], decode: bool
) -> Reading:
    data = memoryview(raw)
    digest = sha256(data).hexdigest()
    if not is_part10(data):
        context = Context(index, file)
        scanned = scan_buffer(data, context, "its bytes")
        return Reading(file, len(raw), None, (*named, _violation("isn't a DICOM file", file), *scanned))
    parts = take_apart(data)
    claims = read_claims(parts)
    context = Context(index, file, claims.dates, parts.text(PATIENT))
    found = [
        *named,
        *_structure(parts, file),
        *check_claims(claims, file),
        *check_attributes(parts, claims, file),
    ]
    found += [*scan_elements((*parts.meta, *parts.elements), context), *scan_bytes(parts, context)]
    if parts.inflated:
        found += scan_buffer(data, context, "the deflated file")
    size = 0
    if decode and is_packed(parts):
        pixels, size = _decoded(path, parts, context)
        found += pixels
    identity = identify(parts, claims, file, len(raw), digest)
    return Reading(file, len(raw), identity, tuple(dict.fromkeys(found))[:MOST_FINDINGS], size)


def _violation(message: str, file: str, place: str = "") -> Finding:
    return Finding(Severity.VIOLATION, STRUCTURE, message, file, place)


def _structure(parts: Part10, file: str) -> Iterator[Finding]:
    """What is wrong with the file as a file."""
    if parts.broken:
        yield _violation(
            f"can't be read: {BYTE.sub('', parts.broken)}", file, "".join(BYTE.findall(parts.broken))
        )
    if any(parts.preamble):
        yield _violation("the preamble isn't empty", file, "preamble")
    start, end = parts.left_over
    if end > start and not parts.broken:
        yield _violation(f"{end - start} bytes that belong to no attribute", file, "after the data set")
    for what, offset in parts.oddities:
        yield _violation(what, file, f"byte {offset}")
    for element in parts.elements:
        standard = standard_vr(element.tag)
        if standard and element.vr != standard and not _may_be(element.vr, standard):
            message = f"is written as {element.vr}, which isn't its value representation"
            yield Finding(Severity.LOOK, STRUCTURE, message, file, element.place)


def _may_be(written: str, standard: str) -> bool:
    """Whether the Standard knows both representations for one attribute ('US or SS or OW'), as far as we
    say.
    """
    return any({written, standard} <= pair for pair in ({"US", "SS", "OW"}, {"OB", "OW"}))


def _decoded(path: Path, parts: Part10, context: Context) -> tuple[list[Finding], int]:
    """Findings in the bytes of the decoded pixels, and how many there were."""
    found: list[Finding] = []
    done = 0
    if decoded_size(parts) > LARGEST_DECODED:
        message = "pixels too large to be decoded here"
        return [Finding(Severity.LOOK, "pixels", message, context.file, "(7FE0,0010)")], 0
    try:
        for frame in decoded(path):
            raw = frame.tobytes()
            done += len(raw)
            found += scan_buffer(memoryview(raw), context, "(7FE0,0010), decoded")
    except FAULTS as error:
        message = f"pixels that can't be decoded ({type(error).__name__})"
        found.append(Finding(Severity.VIOLATION, "pixels", message, context.file, "(7FE0,0010)"))
    return found, done
