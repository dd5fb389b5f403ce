"""Pseudonyms: HMAC-SHA-256 with a secret of the site, apart by purpose. The secret never leaves the site."""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import unicodedata
from hashlib import sha256
from pathlib import Path

from fedai.errors import ConfigError

SECRET_BYTES = 32
PLACEHOLDERS = frozenset({
    "NA", "NONE", "NULL", "NIL", "NOID", "NOPATIENTID", "ANON", "ANONYM", "ANONYMOUS", "ANONYMIZED",
    "ANONYMISED", "UNKNOWN", "UNKNOWNPATIENT", "UNIDENTIFIED", "NOTAVAILABLE", "NOTKNOWN", "TEST",
    "TESTPATIENT", "XXX",
})  # fmt: skip
"""What archives write where a PatientID is missing, in letters and digits alone."""


def _is_placeholder(patient_id: str) -> bool:
    """Whether it names nobody: without letter or digit, such a word, zeros, or five nines and more."""
    core = "".join(character for character in patient_id.upper() if character.isalnum())
    return not core.strip("0") or core in PLACEHOLDERS or (len(core) > 4 and not core.strip("9"))


def make_private(folder: Path) -> None:
    """Make a folder that its owner alone can open, and those that are missing above it."""
    if not folder.exists():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def create_secret(path: Path) -> bytes:
    """Write a secret of 32 random bytes that its owner alone can read, in a folder that is made if need be.

    Raises ConfigError if there is one.
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    make_private(path.parent)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        hint = "keep it: with a new one every patient would get a second pseudonym"
        raise ConfigError("there is a pseudonym key already", where=str(path), hint=hint) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    return secret


def load_secret(path: Path) -> bytes:
    """The site's secret, 32 bytes.

    Raises ConfigError if it is missing, has another length or is open to others.
    """
    if not path.is_file():
        hint = (
            "`fedai site init` makes it; if there was one, restore it, or patients can't be matched any more"
        )
        raise ConfigError("the pseudonym key is missing", where=str(path), hint=hint)
    if path.stat().st_mode & 0o077:
        raise ConfigError(
            "other users may read the pseudonym key", where=str(path), hint=f"chmod 600 {path.name}"
        )
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        what = f"the pseudonym key has {len(secret)} bytes instead of {SECRET_BYTES}"
        raise ConfigError(what, where=str(path), hint="restore it from its backup")
    return secret


def rotate_secret(path: Path) -> Path:
    """Put a new secret in place of one, and keep the old one beside it under its key id. Returns its path."""
    old = path.with_name(f"{path.name}.{Pseudonyms(load_secret(path)).key_id}")
    path.rename(old)
    create_secret(path)
    return old


class Pseudonyms:
    """Keyed, one-way, consistent names for patients, UIDs, accessions and the keys of label files.

    With a `project` the same patient has other names than in any other project of the same site.
    """

    def __init__(self, secret: bytes, project: str = "") -> None:
        if len(secret) != SECRET_BYTES:
            raise ConfigError(f"a pseudonym key has {SECRET_BYTES} bytes, not {len(secret)}")
        domain = f"fedai project\x1f{unicodedata.normalize('NFC', project)}".encode()
        self._secret = hmac.digest(secret, domain, sha256) if project else secret

    def _digest(self, purpose: str, *parts: str) -> bytes:
        text = unicodedata.normalize("NFC", "\x1f".join(("fedai", purpose, *parts)))
        return hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), sha256)

    @property
    def key_id(self) -> str:
        """Names the secret without giving it away: 16 hex digits."""
        return self._digest("key id").hex()[:16]

    def patient(self, patient_id: str, issuer: str, study_uid: str, sop_uid: str) -> str:
        """The patient's pseudonym: 'p' and 26 letters and digits (128 bits).

        From PatientID and its issuer. A file without a usable PatientID gets one from its StudyInstanceUID
        (or, without that, from itself): two such studies may belong to one patient, but no two patients ever
        become one.
        """
        if not _is_placeholder(patient_id):
            return self._name("patient", patient_id.strip(" \0"), issuer.strip(" \0"))
        if study_uid:
            return self._name("patient of study", study_uid)
        return self._name("patient of object", sop_uid)

    def number_key(self, patient_id: str) -> str:
        """What tells a PatientID apart whoever issued it: 32 hex digits, '' for one that names nobody."""
        return "" if _is_placeholder(patient_id) else self.label_key("number", patient_id)

    def _name(self, purpose: str, *parts: str) -> str:
        return name_of(self._digest(purpose, *parts)[:16])

    def uid(self, uid: str) -> str:
        """A UID under 2.25 (PS3.5 B.2: a UUID as an integer; version 8, RFC 9562), the same for the same
        input.
        """
        number = int.from_bytes(self._digest("uid", uid.strip(" \0"))[:16], "big")
        number = number & ~(0xF << 76) | 8 << 76
        return f"2.25.{number & ~(0x3 << 62) | 2 << 62}"

    def accession(self, number: str) -> str:
        """An accession number's pseudonym, 'a' and 15 letters and digits (a value of SH has 16 at most)."""
        digest = self._digest("accession", number.strip(" \0"))[:16]
        return "a" + base64.b32encode(digest).decode().rstrip("=").lower()[:15]

    def offset_days(self, patient: str) -> int:
        """By how many days all dates of a patient (given as pseudonym) are moved: -3650 to -365."""
        return -365 - int.from_bytes(self._digest("dates", patient)[:8], "big") % 3286

    def label_key(self, kind: str, value: str) -> str:
        """What a label row and an object are matched by: 32 hex digits, '' for an empty value."""
        value = value.strip(" \0")
        return self._digest("label", kind, value).hex()[:32] if value else ""


def name_of(number: bytes) -> str:
    """A patient's pseudonym from 16 bytes: 'p' and 26 letters and digits."""
    return "p" + base64.b32encode(number).decode().rstrip("=").lower()
