"""Who belongs to the consortium: the server admits a site by the public key that the site made.

Nothing secret passes between the two. The site's copy of our authority's certificate comes in a kit; both
sides compare fingerprints by another way (telephone) before they trust it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fedai.errors import ConfigError, RefusedByPolicy
from fedai_server import pki
from fedai_server.control import Control
from fedai_server.home import ServerHome, check_site_name, write_file
from fedai_server.ledger import note


@dataclass(frozen=True)
class Admission:
    """A site that was admitted (`new`), or had been before with the same key."""

    site: str
    node_id: int
    key_fingerprint: str
    kit: Path
    new: bool


def admit(home: ServerHome, site: str, key_file: Path) -> Admission:
    """Admit `site` by its public key (PEM or OpenSSH), keep a copy of the key, write the site's kit.

    Needs the server up. Doing it twice changes nothing. Raises ConfigError (no such file, not a P-384 public
    key, no name), RefusedByPolicy (the name has another key, the key another name) and FederationError.
    """
    key = _read_key(key_file)
    kept = home.site_key(site)
    _refuse_conflicts(home, site, key)
    note(home, "admit", site=site, key=key_fingerprint(key))
    with Control(home) as control:
        node_id = control.register_site(site, key)
    new = not kept.exists()
    write_file(kept, key, mode=0o600)
    return Admission(site, node_id, key_fingerprint(key), write_kit(home, home.kits / site, site), new)


def retire(home: ServerHome, site: str) -> bool:
    """Shut `site` out for good; False if it had not been admitted. Its key can't be admitted again.

    Needs the server up. Raises ConfigError for a name that is none, and FederationError.
    """
    kept = home.site_key(site)
    note(home, "retire", site=site, **({"key": key_fingerprint(kept.read_bytes())} if kept.exists() else {}))
    with Control(home) as control:
        found = control.unregister_site(site)
    if kept.exists():
        retired = home.sites / "retired"
        retired.mkdir(mode=0o700, exist_ok=True)
        kept.replace(retired / f"{site}-{key_fingerprint(kept.read_bytes())[:12].replace(':', '')}.pub")
        return True
    return found


def admitted_sites(home: ServerHome) -> dict[str, bytes]:
    """Names and PEM keys of the sites that this home keeps, by name. Needs no server."""
    return {path.stem: path.read_bytes() for path in sorted(home.sites.glob("*.pub"))}


def write_kit(home: ServerHome, folder: Path, site: str = "") -> Path:
    """Write what a site needs from us into `folder`: ca.pem, and kit.yaml with address and fingerprint."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = home.authority.read_bytes()
    lines = [f'site: "{site}"'] if site else []
    lines += [f'address: "{home.address}"', "ca: ca.pem", f'ca_fingerprint: "{pki.fingerprint(authority)}"']
    write_file(folder / "ca.pem", authority, mode=0o644)
    write_file(folder / "kit.yaml", ("\n".join(lines) + "\n").encode(), mode=0o644)
    return folder


def key_fingerprint(pem: bytes) -> str:
    """SHA-256 of a public key's DER form, as colon-separated hex: what both sides read out by telephone."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_public_key(pem)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest().hex(":")


def _read_key(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"can't read {path}: {error.strerror}", hint="give the site's keys/agent.pub"
        ) from None
    try:
        return pki.read_public_key(data)
    except ConfigError as error:
        raise ConfigError(error.message, hint=error.hint, where=str(path)) from None


def _refuse_conflicts(home: ServerHome, site: str, key: bytes) -> None:
    check_site_name(site)
    for name, known in admitted_sites(home).items():
        if name == site and known != key:
            raise RefusedByPolicy(
                f"{site} is admitted with another key ({key_fingerprint(known)[:23]}…)",
                hint=f"if the site has a new key: fedai server retire {home.folder} {site}, then admit again",
            )
        if name != site and known == key:
            raise RefusedByPolicy(f"this key is admitted as {name}", hint="each site makes a key of its own")
