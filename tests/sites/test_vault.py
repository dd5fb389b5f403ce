"""The vault: random tokens, the way back under two persons' locks, destruction."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from fedai_site.deidentify.pseudonyms import Pseudonyms, create_secret
from fedai_site.deidentify.vault import VaultPseudonyms, create_vault, destroy, reidentify

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
    with pytest.raises(RefusedByPolicy):
        _look(vault, pseudonym)
    with pytest.raises(ConfigError, match="isn't a vault"):
        VaultPseudonyms(vault)
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
