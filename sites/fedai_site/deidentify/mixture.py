"""One OUT has one set of names: a run that would add the same images under other ones is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedai.errors import RefusedByPolicy
from fedai_site.deidentify.objects import Settings
from fedai_site.deidentify.output import EVIDENCE, Job
from fedai_site.deidentify.state import State


def check(out: Path, private: Path, settings: Settings, *, restart: bool) -> None:
    """Raises RefusedByPolicy where OUT holds clean files under another key, vault, project or profile, or
    files that this private folder knows nothing of. `restart`: what it does know will be taken back.
    """
    if not (private / "state.sqlite").is_file():
        return _check_unknown(out, private)
    with State(private) as state:
        if not state.has_objects():
            return _check_unknown(out, private)
        if restart:
            return None
        earlier, keys = state.settings_in_use(), state.key_ids()
    now = _facts(out, private, settings)
    differing = sorted({what for then in earlier for what in _differing(then, now)})
    if not differing and keys != {now["key"]}:
        differing = [f"another key ({', '.join(sorted(keys))})"]
    if differing:
        hint = "choose another OUT, or --restart: it deletes OUT's clean files and does all anew"
        what = f"OUT holds clean files of earlier runs under {' and '.join(differing)}"
        raise RefusedByPolicy(what, where=str(out), hint=hint)
    return None


def _check_unknown(out: Path, private: Path) -> None:
    evidence = out / EVIDENCE
    if evidence.is_file() and evidence.stat().st_size:
        hint = "give the private folder of the runs that filled OUT (--private), or choose another OUT"
        what = f"OUT holds clean files that {private} knows nothing of"
        raise RefusedByPolicy(what, where=str(out), hint=hint)


def _facts(out: Path, private: Path, settings: Settings) -> dict[str, Any]:
    """As those of a job; a key that isn't there yet is like none that was used."""
    if settings.key is None or settings.key.exists():
        return Job(out, out, private, settings).facts
    profile = settings.profile.model_dump(mode="json")
    return {"names": "key", "key": "", "project": settings.project, "profile": profile}


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of the two runs' names and profiles isn't the same, in words."""
    words = []
    if then["names"] != now["names"]:
        words.append("a vault" if then["names"] == "vault" else "a key instead of a vault")
    elif then["project"] != now["project"]:
        words.append(f"the project {then['project']!r}" if then["project"] else "no project")
    elif then["key"] != now["key"]:
        words.append(f"another {then['names']} ({then['key']})")
    if then["profile"] != now["profile"]:
        words.append(f"another profile ({_told(then['profile'])})")
    return words


def _told(profile: Mapping[str, Any]) -> str:
    return f"{'+'.join(('basic', *sorted(profile['options'])))}, dates: {profile['dates']}"
