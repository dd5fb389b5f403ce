"""What can be wrong with a server's home before anybody connects: a list of checks, each with a next step."""

from __future__ import annotations

import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from fedai.checks import Check, check_disk, check_flower
from fedai.errors import ConfigError, FedaiError
from fedai_server import pki
from fedai_server.certificates import Given, objection
from fedai_server.home import ServerHome
from fedai_server.ledger import verify

RENEW_WITHIN_DAYS = 60


def examine(home: ServerHome) -> tuple[Check, ...]:
    """All checks of a home, in order. Starts nothing and changes nothing."""
    return tuple(_checks(home))


def _checks(home: ServerHome) -> Iterator[Check]:
    yield _secrets(home)
    yield _certificate(home)
    yield _names(home)
    yield check_flower()
    yield _serverapp()
    yield _ports(home)
    yield _bundle()
    yield _ledger(home)
    yield check_disk(home.folder, "every update passes through the database: make room")


def _secrets(home: ServerHome) -> Check:
    files = [home.pki / "server.key", home.superexec_secret, home.control_token]
    files += [home.pki / "ca.key"] if home.settings.authority == "own" else []
    files += [home.ledger_key] if home.ledger_key.exists() else []  # made at the first line of an older home
    bad = [path.name for path in files if not path.is_file() or _mode(path) & 0o077]
    bad += [str(home.folder)] if _mode(home.folder) & 0o077 else []
    hint = f"chmod 700 {home.folder}; chmod 600 its keys; restore what is missing"
    return Check("secrets", not bad, ", ".join(bad) or "readable by the owner only", hint if bad else "")


def _certificate(home: ServerHome) -> Check:
    try:
        days = pki.days_left((home.pki / "server.pem").read_bytes())
    except (OSError, ConfigError) as error:
        return Check("certificate", False, str(error), _renew(home))
    own = home.settings.authority == "own"  # others give them for a day, and renew them by themselves
    fine = days >= RENEW_WITHIN_DAYS if own else days >= 0
    return Check("certificate", fine, f"{days} days left", "" if fine else _renew(home))


def _names(home: ServerHome) -> Check:
    given = Given(*(home.pki / name for name in ("ca.pem", "server.pem", "server.key")))
    try:
        faults = {name: objection(given, name) for name in (home.settings.public_host, *home.settings.names)}
        valid_for = pki.names_of((home.pki / "server.pem").read_bytes())
    except (OSError, ConfigError) as error:
        return Check("names", False, str(error), _renew(home))
    refused = "; ".join(f"{name}: {fault}" for name, fault in faults.items() if fault)
    found = f"a site would refuse it: {refused}" if refused else ", ".join(valid_for)
    return Check("names", not refused, found, _renew(home) if refused else "")


def _renew(home: ServerHome) -> str:
    given = "" if home.settings.authority == "own" else " --certificate FILE --key FILE"
    return f"fedai server renew {home.folder}{given}"


def _serverapp() -> Check:
    command = Path(sysconfig.get_path("scripts")) / "flwr-serverapp"
    hint = "" if command.is_file() else "install the release again in a virtual environment"
    return Check("serverapp", command.is_file(), str(command), hint)


def _ports(home: ServerHome) -> Check:
    from fedai_server.processes import is_ready
    from fedai_server.superlink import bind_both

    if is_ready(home):
        return Check("ports", True, f"the server is up at {home.address}")
    try:
        for listener in bind_both(home):
            listener.close()
    except ConfigError as error:
        return Check("ports", False, error.message, error.hint)
    return Check("ports", True, "free; the server is not running")


def _bundle() -> Check:
    from fedai_server.bundle import release_bundle

    try:
        return Check("bundle", True, f"{len(release_bundle())} bytes, the release's own")
    except ConfigError as error:
        return Check("bundle", False, error.message, error.hint)


def _ledger(home: ServerHome) -> Check:
    try:
        found = verify(home)
    except FedaiError as error:
        return Check("ledger", False, error.message, "compare with a backup; see who could write the home")
    return Check("ledger", True, f"{found.lines} lines, unbroken; {found.heads} signed heads")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
