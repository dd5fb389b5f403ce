"""What would keep a site from taking part: a list of checks, each with a next step. Changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fedai.checks import Check, check_disk, check_flower
from fedai.errors import ConfigError, DataError, FederationError
from fedai_site import isolation
from fedai_site.confinement import PROXIES
from fedai_site.expiry import due
from fedai_site.home import SiteHome, fingerprints
from fedai_site.overview import told
from fedai_site.policy import floor, read_policy
from fedai_site.witness import verify

CLOCK_MAY_DIFFER_S = 4.0  # Flower refuses a signature from more than 5 s ahead
MEMORY_WANTED_GB = 4.0


def examine(home: SiteHome) -> tuple[Check, ...]:
    """All checks, in order."""
    return tuple(_checks(home))


def _checks(home: SiteHome) -> Iterator[Check]:
    yield _secrets(home)
    yield _public_key(home)
    yield _authority(home)
    yield from _server(home)
    yield check_flower()
    yield _ledger(home)
    yield _witness(home)
    yield check_disk(home.folder, "clean images, caches and the ledger need room")
    yield _memory()
    yield _proxy()
    yield from _policy(home)
    yield from isolation.examine(home)


def _secrets(home: SiteHome) -> Check:
    signing = [path for path in (home.ledger_key, home.engineer_key) if path.exists()]
    files = (home.private_key, home.pseudonym_key, *signing)
    bad = [path.name for path in files if not path.is_file() or _mode(path) & 0o077]
    hint = "chmod 600 the files in keys/; restore what is missing from the backup" if bad else ""
    return Check("secrets", not bad, ", ".join(bad) or "readable by the owner only", hint)


def _public_key(home: SiteHome) -> Check:
    fingerprint = fingerprints(home)["key_fingerprint"]
    hint = "" if fingerprint else "restore keys/agent.pub from the backup"
    return Check(
        "agent.pub", bool(fingerprint), f"sha256 {fingerprint}" if fingerprint else "unreadable", hint
    )


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _authority(home: SiteHome) -> Check:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(home.settings.server.ca.read_bytes())
    except (OSError, ValueError):
        return Check("ca.pem", False, "unreadable", "ask the coordinator for ca.pem again")
    valid = certificate.not_valid_after_utc > datetime.now(UTC)
    fingerprint = fingerprints(home)["ca_fingerprint"]
    return Check(
        "ca.pem", valid, f"sha256 {fingerprint}", "" if valid else "it has expired; ask for a new one"
    )


def _server(home: SiteHome) -> Iterator[Check]:
    from fedai_site.fleet import probe

    try:
        theirs = probe(home.settings.server.address, home.settings.server.ca)
    except FederationError as error:
        yield Check("server", False, error.message, error.hint)
        return
    yield Check("server", True, f"{home.settings.server.address} answers over TLS")
    off = (datetime.now(UTC) - theirs).total_seconds()
    fine = abs(off) < CLOCK_MAY_DIFFER_S
    yield Check(
        "clock", fine, f"{off:+.0f} s from the server's", "" if fine else "set this machine's clock (NTP)"
    )


def _ledger(home: SiteHome) -> Check:
    try:
        found = verify(home)
    except (ConfigError, DataError) as error:
        return Check("ledger", False, error.message, "compare with a backup; tell the coordinator")
    return Check("ledger", True, f"{found.lines} lines, unbroken; {found.heads} signed heads")


def _witness(home: SiteHome) -> Check:
    """Whether the heads are written to storage that isn't the ledger's own."""
    folder = home.settings.witness
    if folder is None:
        return Check("witness", True, "none; the server's record of each run holds heads too")
    place = home.folder / folder
    if not (place.is_dir() and os.access(place, os.W_OK)):
        hint = "nothing leaves until it is there: mount it, or change `witness` in site.yaml"
        return Check("witness", False, f"{place} can't be written", hint)
    same = place.stat().st_dev == home.folder.stat().st_dev
    return Check("witness", True, f"{place}{', on the same disk as the ledger' if same else ''}")


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    fine = total > MEMORY_WANTED_GB
    return Check("memory", fine, f"{total:.0f} GB", "" if fine else f"{MEMORY_WANTED_GB:.0f} GB are wanted")


def _policy(home: SiteHome) -> Iterator[Check]:
    """Whether it can be read, asks for what this release doesn't have, and what it says is kept too long."""
    try:
        policy, found = read_policy(home.rules), due(home).counts()
    except ConfigError as error:
        yield Check("policy", False, error.message, "nothing is allowed until it is mended")
        return
    broken = [clause for clause in floor(policy) if not clause.holds] if policy else []
    said = "; ".join(clause.said for clause in broken) or ("kept" if policy else "none")
    yield Check("policy", not broken, said, "every study is refused, as it asks" if broken else "")
    hint = "the agent deletes it within a day; now: fedai site purge HOME --expired" if found else ""
    yield Check("retention", True, told(found) or "nothing is kept too long", hint, warns=bool(found))


def _proxy() -> Check:
    named = [name for name in PROXIES if os.environ.get(name)]
    return Check("proxy", True, f"{', '.join(named)} is used for the server" if named else "none is set")
