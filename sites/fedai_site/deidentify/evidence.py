"""What is known about one clean object: from which bytes it came, what was done, by what, and what it hashes
to now. No identifier is in it: only hashes, counts, pseudonyms and names of rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import fedai
from fedai_site.deidentify.engine import Cleaned
from fedai_site.deidentify.profile import Profile
from fedai_site.deidentify.table import load_table


@dataclass(frozen=True)
class Evidence:
    """One line of `evidence.jsonl`, or the `evidence` of a catalogued object.

    `path` is relative to the output folder; `pixels` and `face` say what was examined and found (None:
    nothing of the kind was done); `review` is a person's decision, if it took one.
    """

    path: str
    input_sha256: str
    output_sha256: str
    release: str
    profile: str
    options: tuple[str, ...]
    dates: str
    table_edition: str
    table_sha256: str
    key_id: str
    actions: Mapping[str, int]
    pixels: Mapping[str, Any] | None
    face: Mapping[str, Any] | None
    review: Mapping[str, Any] | None

    def line(self) -> str:
        """As JSON, keys sorted, so that equal evidence is equal text."""
        return json.dumps(asdict(self), sort_keys=True)


def gather(
    cleaned: Cleaned,
    profile: Profile,
    *,
    input_sha256: str,
    pixels: Any = None,
    face: Mapping[str, Any] | None = None,
    review: Mapping[str, Any] | None = None,
) -> Evidence:
    """Evidence of what has been done to a cleaned object; path and output hash come when it's written."""
    table = load_table()
    return Evidence(
        path="",
        input_sha256=input_sha256,
        output_sha256="",
        release=fedai.__version__,
        profile=profile.name,
        options=tuple(sorted(profile.options)),
        dates=profile.dates,
        table_edition=table.edition,
        table_sha256=table.sha256_of_source_xml,
        key_id=cleaned.key_id,
        actions=dict(sorted(cleaned.actions.items())),
        pixels=findings(pixels),
        face=face,
        review=review,
    )


def findings(found: Any) -> dict[str, Any] | None:
    """A findings dataclass as plain data, without what differs from one run to the next (seconds)."""
    if found is None:
        return None
    return {field.name: getattr(found, field.name) for field in fields(found) if field.name != "seconds"}


def fits(evidence: Mapping[str, Any], folder: Path) -> bool:
    """Whether the bytes on disk are still those that the evidence speaks of."""
    try:
        data = (folder / str(evidence["path"])).read_bytes()
    except (OSError, KeyError):
        return False
    return sha256(data).hexdigest() == evidence.get("output_sha256")
