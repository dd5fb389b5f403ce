"""The vault: random tokens, the way back under two persons' locks, destruction."""

import json
import sqlite3
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import pytest
from fedai_site.deidentify import vaultlog
from fedai_site.deidentify.pseudonyms import Pseudonyms, create_secret
from fedai_site.deidentify.vault import VaultPseudonyms, begin_anew, create_vault, destroy, reidentify

from fedai.errors import ConfigError, RefusedByPolicy

KIM = ("PAT-KIM-4711", "Seoul", "1.2.3", "1.2.3.4")


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    create_vault(tmp_path / "vault", _shares(tmp_path))
    return tmp_path / "vault"


def _shares(folder: Path) -> tuple[Path, Path]:
    return folder / "anna.share", folder / "bo.share"


def _look(vault: Path, pseudonym: str, **changes: object) -> list[str]:
    asked = {
        "shares": _shares(vault.parent),
        "reason": "recall of a finding",
        "persons": ("Anna", "Bo"),
        **changes,
    }
    return reidentify(vault, pseudonym, asked["shares"], reason=asked["reason"], persons=asked["persons"])


def _log(vault: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (vault / "log.jsonl").read_text().splitlines()]


def _name(vault: Path) -> str:
    return VaultPseudonyms(vault).patient(*KIM)


def test_the_same_patient_keeps_the_token_and_another_vault_gives_another(
    vault: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    create_vault(other, (tmp_path / "c.share", tmp_path / "d.share"))
    first = VaultPseudonyms(vault)
    assert first.patient(*KIM) == VaultPseudonyms(vault).patient(*KIM) != VaultPseudonyms(other).patient(*KIM)
    assert first.uid("1.2.3") == VaultPseudonyms(vault).uid("1.2.3") != first.uid("1.2.4")
    assert first.offset_days("p1") == VaultPseudonyms(vault).offset_days("p1")


def test_processes_that_meet_a_patient_at_once_agree(vault: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        assert len(set(pool.map(_name, [vault] * 24))) == 1


def test_a_token_is_not_derived_from_the_patient_nor_from_the_lookup_key(vault: Path) -> None:
    derived = Pseudonyms((vault / "lookup.key").read_bytes()).patient(*KIM)
    assert VaultPseudonyms(vault).patient(*KIM) != derived


def test_nothing_in_the_vault_shows_an_identifier(vault: Path) -> None:
    VaultPseudonyms(vault).patient(*KIM)
    content = b"".join(path.read_bytes() for path in vault.iterdir())
    assert b"KIM" not in content
    assert b"Seoul" not in content
    assert {path.stat().st_mode & 0o077 for path in vault.iterdir()} == {0}


def test_two_persons_with_a_reason_look_back_and_it_is_logged(vault: Path) -> None:
    pseudonym = VaultPseudonyms(vault).patient(*KIM)
    assert _look(vault, pseudonym)[:2] == ["PAT-KIM-4711", "Seoul"]
    assert _look(vault, pseudonym, shares=_shares(vault.parent)[::-1])[0] == "PAT-KIM-4711"
    first, second = _log(vault)
    assert first["reason"] == "recall of a finding"
    assert first["persons"] == ["Anna", "Bo"]
    assert first["before"] == ""
    assert second["before"] != ""


def _looked(vault: Path) -> list[bytes]:
    """The log's lines after three look backs."""
    pseudonym = VaultPseudonyms(vault).patient(*KIM)
    for _ in range(3):
        _look(vault, pseudonym)
    return (vault / "log.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("how", ["gone", "emptied", "cut", "first line gone", "changed", "longer", "end"])
def test_a_log_that_was_changed_or_cut_is_seen_at_every_opening(vault: Path, how: str) -> None:
    lines = _looked(vault)
    now = {
        "gone": [],
        "emptied": [],
        "cut": lines[:1],
        "first line gone": lines[1:],
        "changed": [lines[0].replace(b"recall", b"search"), *lines[1:]],
        "longer": [*lines, lines[0]],
        "end": lines,
    }[how]
    (vault / "log.jsonl").write_bytes(b"".join(now))
    if how == "gone":
        (vault / "log.jsonl").unlink()
    if how == "end":
        with closing(sqlite3.connect(vault / "tokens.sqlite")) as database, database:
            database.execute("DELETE FROM log")
    for _ in range(2):
        with pytest.raises(RefusedByPolicy, match="changed or cut"):
            VaultPseudonyms(vault)
    with pytest.raises(RefusedByPolicy, match="changed or cut"):
        _look(vault, "p" + "a" * 26)


def test_who_has_the_whole_vault_cannot_rewrite_what_was_logged_before(vault: Path) -> None:
    """The chain and the database's end are made to fit; the two shares still tell."""
    entries = [json.loads(line) for line in _looked(vault)][:2]
    entries[0]["reason"], lines = "a harmless one", []
    for entry in entries:
        entry["before"] = sha256(lines[-1]).hexdigest() if lines else ""
        lines.append(json.dumps(entry).encode() + b"\n")
    (vault / "log.jsonl").write_bytes(b"".join(lines))
    with closing(sqlite3.connect(vault / "tokens.sqlite")) as database, database:
        database.execute("UPDATE log SET lines = 2, last = ?", (lines[-1],))
    pseudonym = VaultPseudonyms(vault).patient(*KIM)
    with pytest.raises(RefusedByPolicy, match="line 1 was not written by this vault"):
        _look(vault, pseudonym)
    (vault / "log.jsonl").write_bytes(b"")
    with closing(sqlite3.connect(vault / "tokens.sqlite")) as database, database:
        database.execute("UPDATE log SET lines = 0, last = ?", (b"",))
    pseudonym = VaultPseudonyms(vault).patient(*KIM)
    with pytest.raises(RefusedByPolicy, match="missing at its end"):
        _look(vault, pseudonym)
    (vault / "log.jsonl").write_bytes(b"")
    vaultlog.begin(vault, b"a secret of somebody else")
    vaultlog.append(vault, {"reason": "a harmless one"})
    with pytest.raises(RefusedByPolicy, match="line 1 was not written by this vault"):
        _look(vault, VaultPseudonyms(vault).patient(*KIM))


@pytest.mark.parametrize("kept", [0, 40])
def test_a_last_line_that_a_power_cut_took_is_written_again(vault: Path, kept: int) -> None:
    lines = _looked(vault)
    (vault / "log.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    VaultPseudonyms(vault)
    assert (vault / "log.jsonl").read_bytes() == b"".join(lines)


def test_processes_that_look_back_at_once_keep_the_chain(vault: Path) -> None:
    pseudonym = VaultPseudonyms(vault).patient(*KIM)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(_look, [vault] * 12, [pseudonym] * 12))
    assert [entry["number"] for entry in vaultlog.check(vault)] == list(range(1, 13))


def test_two_persons_begin_a_new_log_and_the_old_one_stays_beside_it(vault: Path) -> None:
    why = {"reason": "the disk was restored", "persons": ("Anna", "Bo")}
    lines = _looked(vault)
    with pytest.raises(RefusedByPolicy, match="in order"):
        begin_anew(vault, _shares(vault.parent), **why)
    (vault / "log.jsonl").write_bytes(lines[0])
    with pytest.raises(RefusedByPolicy, match="two different persons"):
        begin_anew(vault, _shares(vault.parent), reason="lost", persons=("Anna", "Anna"))
    aside = begin_anew(vault, _shares(vault.parent), **why)
    assert (vault / aside).read_bytes() == lines[0]
    assert _look(vault, VaultPseudonyms(vault).patient(*KIM))[0] == "PAT-KIM-4711"
    assert [entry.get("reason") for entry in _log(vault)] == ["the disk was restored", "recall of a finding"]


def test_shares_are_not_made_inside_the_vault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="inside the vault"):
        create_vault(tmp_path / "vault", (tmp_path / "a.share", tmp_path / "vault" / "b.share"))
    assert not (tmp_path / "vault").exists()


def test_missing_folders_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    create_vault(tmp_path / "srv" / "vault", (tmp_path / "anna" / "a.share", tmp_path / "bo" / "b.share"))
    create_secret(tmp_path / "keys" / "site" / "site.key")
    made = ("srv", "srv/vault", "anna", "bo", "keys", "keys/site")
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in made} == {0o700}


def test_composed_and_decomposed_letters_are_one_patient(vault: Path, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "김-Å-1") for form in ("NFC", "NFD"))
    for names in (VaultPseudonyms(vault), Pseudonyms(create_secret(tmp_path / "key"))):
        assert names.patient(composed, "", "", "") == names.patient(decomposed, "", "", "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"reason": " "}, "reason"),
        ({"persons": ("Anna", "anna ")}, "two different persons"),
        ({"persons": ("Anna", "")}, "two different persons"),
        ({"shares": "one"}, "don't open"),
        ({"shares": "missing"}, "isn't there"),
    ],
)
def test_a_look_back_without_both_persons_is_refused_and_logged(
    vault: Path, changes: dict[str, object], why: str
) -> None:
    pseudonym = VaultPseudonyms(vault).patient(*KIM)
    anna, bo = _shares(vault.parent)
    pairs = {"one": (anna, anna), "missing": (anna, bo.with_name("nobody.share"))}
    if "shares" in changes:
        changes = {"shares": pairs[str(changes["shares"])]}
    with pytest.raises(RefusedByPolicy, match=why):
        _look(vault, pseudonym, **changes)
    assert why in str(_log(vault)[-1]["refused"])


def test_a_pseudonym_of_another_vault_is_refused(vault: Path) -> None:
    VaultPseudonyms(vault).patient(*KIM)
    with pytest.raises(RefusedByPolicy, match="never gave"):
        _look(vault, "p" + "a" * 26)


def test_after_destruction_nobody_can_look_back(vault: Path) -> None:
    pseudonym = VaultPseudonyms(vault).patient(*KIM)
    destroy(vault)
    for use in (VaultPseudonyms, destroy, lambda folder: _look(folder, pseudonym)):
        with pytest.raises(ConfigError, match="isn't a vault"):
            use(vault)
    assert {path.name for path in vault.iterdir()} == {"log.jsonl"}


def test_a_vault_never_overwrites(vault: Path) -> None:
    with pytest.raises(ConfigError, match="already"):
        create_vault(vault, _shares(vault.parent))


def test_projects_of_one_site_share_no_pseudonym(tmp_path: Path) -> None:
    secret = create_secret(tmp_path / "key")
    plain, project = Pseudonyms(secret), Pseudonyms(secret, "nodules")
    assert plain.patient(*KIM) != project.patient(*KIM)
    assert plain.uid("1.2.3") != project.uid("1.2.3")
    assert plain.accession("A1") != project.accession("A1")
    assert plain.key_id != project.key_id
    assert len(plain.accession("A1")) == 16


def test_a_patients_dates_move_back_by_one_to_ten_years(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms(create_secret(tmp_path / "key"))
    offsets = {pseudonyms.offset_days(f"p{number}") for number in range(500)}
    assert len(offsets) > 400
    assert min(offsets) >= -3650
    assert max(offsets) <= -365
