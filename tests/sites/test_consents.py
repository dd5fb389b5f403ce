"""Consent records: read, stored, and honoured by the cohort."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from dicom_files import radiograph, save
from fedai_site.adding import add_data
from fedai_site.cohort import Cohort, select
from fedai_site.consentfile import read_consents
from fedai_site.consents import Consents, rights_now
from fedai_site.home import SiteHome
from fedai_site.rights import find_patients, import_consents
from homes import add_patients, make_home
from studies import small_study

from fedai import wire
from fedai.cli.app import run
from fedai.errors import ConfigError
from fedai.study import Study

YESTERDAY = (date.today() - timedelta(days=1)).isoformat()
HEALTH = {"use": "HMB", "commercial": False, "not_for_profit": True, "methods": True}


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    """Twelve patients with two images each; P0 has the label `clear`, P1 `nodule` and so on."""
    return make_home(tmp_path)


def csv(folder: Path, *lines: str, header: str = "PatientID,basis,scope,expires,reference") -> Path:
    path = folder / "consent.csv"
    path.write_text("\n".join((header, *lines)))
    return path


def cohort(home: SiteHome, study: Study | None = None, *, required: bool = False) -> Cohort:
    return select(home.folder, study or small_study(), consent_required=required)


def pseudonym(home: SiteHome, patient_id: str, folder: Path) -> str:
    return find_patients(home, [], csv(folder, patient_id, header="PatientID"))[0][0]


def test_without_any_record_every_patient_is_used_as_before(home: SiteHome) -> None:
    assert cohort(home).flow["consented"] == cohort(home).flow["deidentified"] == 24
    assert not set(cohort(home).excluded) & {"no_consent", "consent_scope", "consent_expired", "withdrawn"}


def test_a_record_is_honoured_though_records_are_not_required(home: SiteHome, tmp_path: Path) -> None:
    lines = ("P0,consent,GRU; NCU,,", "P1,consent,GRU,,", f"P2,opt-out,GRU,{YESTERDAY},",
             f"P3,pipa-28-2,NRES; TS={YESTERDAY},,", "P4,waiver,DS=MONDO:0005070,,IRB 2026-017")  # fmt: skip
    assert import_consents(home, csv(tmp_path, *lines)).stored == 5
    found = cohort(home)
    assert found.excluded == {"consent_expired": 4, "consent_scope": 4}
    assert found.flow["consented"] == found.flow["used"] == 16
    used = {case.patient for cases in found.splits.values() for case in cases}
    assert used.isdisjoint(pseudonym(home, f"P{number}", tmp_path) for number in (0, 2, 3, 4))


def test_what_a_study_declares_decides(home: SiteHome, tmp_path: Path) -> None:
    import_consents(home, csv(tmp_path, "P0,consent,HMB; NPUNCU,,", "P1,consent,HMB; IRB,,"))
    assert cohort(home).excluded == {"consent_scope": 4}
    assert cohort(home, small_study(data_use=HEALTH)).excluded == {"consent_scope": 2}
    approved = {**HEALTH, "ethics_approvals": ["2026-017"]}
    assert cohort(home, small_study(data_use=approved)).excluded == {}


def test_where_records_are_required_a_patient_without_one_is_left_out(home: SiteHome, tmp_path: Path) -> None:
    import_consents(home, csv(tmp_path, *(f"P{number},consent,GRU,," for number in range(5))))
    found = cohort(home, required=True)
    assert found.excluded == {"no_consent": 14}
    assert found.flow["consented"] == found.flow["used"] == 10


def test_every_image_is_accounted_for_whatever_the_reasons(home: SiteHome, tmp_path: Path) -> None:
    lines = ("P0,consent,GRU; NCU,,", f"P1,consent,GRU,{YESTERDAY},", "P2,consent,GRU,,")
    import_consents(home, csv(tmp_path, *lines))
    with Consents(home.folder) as consents:
        consents.withdraw([(pseudonym(home, "P3", tmp_path), "")])
    found = cohort(home, required=True)
    assert found.excluded == {"consent_expired": 2, "consent_scope": 2, "no_consent": 16, "withdrawn": 2}
    assert found.flow["found"] == found.flow["used"] + sum(found.excluded.values())
    assert list(found.flow) == list(wire.FLOW)
    assert list(found.flow.values()) == sorted(found.flow.values(), reverse=True)
    assert set(found.excluded) <= set(wire.EXCLUSIONS)


def test_a_record_that_comes_before_the_images_counts_when_they_come(home: SiteHome, tmp_path: Path) -> None:
    done = import_consents(home, csv(tmp_path, "P50,consent,GRU; NCU,,", "P1,consent,GRU,,"))
    assert done.unknown == (2,)
    add_patients(home, tmp_path / "more", range(50, 51))
    assert cohort(home).excluded == {"consent_scope": 2}


def test_the_newest_record_of_a_patient_counts_under_whatever_key(home: SiteHome, tmp_path: Path) -> None:
    name = pseudonym(home, "P0", tmp_path)
    import_consents(home, csv(tmp_path, "P0,consent,GRU; NCU,,"))
    import_consents(home, csv(tmp_path, f"{name},consent,GRU", header="pseudonym,basis,scope"))
    assert cohort(home).excluded == {}
    import_consents(home, csv(tmp_path, "P0,consent,GRU; NCU,,"))
    assert cohort(home).excluded == {"consent_scope": 2}


def test_a_record_by_a_patient_id_of_two_patients_is_nobodys(home: SiteHome, tmp_path: Path) -> None:
    for number, issuer in ((900, "North"), (901, "South")):
        save(radiograph(number, "P100", IssuerOfPatientID=issuer), tmp_path / "two" / f"{number}.dcm")
    add_data(home.folder, tmp_path / "two", None)
    assert import_consents(home, csv(tmp_path, "P100,consent,GRU,,")).ambiguous == (2,)
    assert cohort(home, required=True).excluded == {"no_consent": 26}
    with pytest.raises(ConfigError, match="several patients answer to it, give pseudonyms: p"):
        find_patients(home, [], csv(tmp_path, "P100", header="PatientID"))


def test_all_problems_of_a_file_are_told_at_once_and_no_cell_of_it(tmp_path: Path) -> None:
    lines = (
        "MRN-4711,konsent,GRU,,",
        ",consent,GRU,,",
        "MRN-4712,waiver,GRU; NPUNC,31.12.2027,",
        "MRN-4711,consent,GRU,,",
        "MRN-4713,consent,MRN-4713,,",
        "MRN-4714,consent,GRU,,,more",
        "",
        "MRN-4715,consent,GRU; TS,,",
    )
    with pytest.raises(ConfigError) as caught:
        read_consents(csv(tmp_path, *lines))
    told = str(caught.value)
    assert "MRN" not in told
    for expected in (
        ":2: the basis is none of those known here (did you mean 'consent'?)",
        ":3: PatientID is empty",
        ":4: a waiver needs the review board's number as reference",
        ":4: the scope's term 2 is none of DUO's (did you mean 'NPUNCU'?)",
        ":4: expires is no date: write it as 2027-12-31",
        ":5: the PatientID of line 2 again",
        ":6: the scope's term 1 is none of DUO's",
        ":7: more cells than the header has",
        ":9: the scope's term 2 is TS, which needs a value",
    ):
        assert expected in told


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("PatientID,basis", "no column named scope"),
        ("basis,scope", "no key column; exactly one of PatientID, pseudonym is needed"),
        ("PatientID,pseudonym,basis,scope", "both key columns"),
        ("PatientID,basis,scope,expiry", "column 4 is none of this file's (did you mean 'expires'?)"),
        ("PatientID;basis;scope", "columns must be separated by commas"),
        ("PatientID,basis,scope,scope", "column 4 is named as one before"),
        ("MRN-4711,consent,GRU", "no key column"),
    ],
)
def test_a_wrong_header_is_refused_before_any_line(tmp_path: Path, header: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_consents(csv(tmp_path, "a,consent,GRU", header=header))
    assert problem in str(caught.value)
    assert "MRN" not in str(caught.value)


def test_a_file_with_a_problem_changes_nothing(home: SiteHome, tmp_path: Path) -> None:
    before = rights_now(home.folder)
    with pytest.raises(ConfigError):
        import_consents(home, csv(tmp_path, "P0,consent,GRU; NCU,,", "P1,consent,GR,,"))
    assert rights_now(home.folder) == before
    with Consents(home.folder) as consents:
        assert consents.consents() == []


def test_whatever_changes_rights_changes_what_the_agent_compares(home: SiteHome, tmp_path: Path) -> None:
    seen = {rights_now(home.folder)}
    import_consents(home, csv(tmp_path, "P0,consent,GRU,,"))
    seen.add(rights_now(home.folder))
    with Consents(home.folder) as consents:
        consents.withdraw([(pseudonym(home, "P1", tmp_path), "")])
    seen.add(rights_now(home.folder))
    assert len(seen) == 3
    assert rights_now(home.folder) in seen


def told(capsys: Any, *words: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run(["site", "consent", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_commands_import_and_list(home: SiteHome, tmp_path: Path, capsys: Any) -> None:
    file = csv(tmp_path, "P0,waiver,DUO:0000006,2099-01-31,IRB 2026-017", "P77,consent,GRU,,")
    code, done = told(capsys, "import", home.folder, file)
    assert (code, done["stored"], done["unknown"]) == (0, 2, [3])
    code, listed = told(capsys, "list", home.folder)
    by_name = {row["patient"]: row for row in listed["patients"]}
    assert by_name[pseudonym(home, "P0", tmp_path)] == {
        "patient": pseudonym(home, "P0", tmp_path), "images": 2, "basis": "waiver", "scope": "HMB",
        "expires": "2099-01-31", "reference": "IRB 2026-017", "state": "on record",
    }  # fmt: skip
    assert sum(row["state"] == "no record" for row in listed["patients"]) == 11
    assert sum(row["patient"].startswith("key ") for row in listed["patients"]) == 1
    assert run(["site", "consent", "list", str(home.folder)]) == 0
    assert "P77" not in capsys.readouterr().out


def test_a_wrong_call_says_what_to_do(home: SiteHome, tmp_path: Path, capsys: Any) -> None:
    code, error = told(capsys, "withdraw", home.folder)
    assert (code, error["error"]["message"]) == (2, "who withdraws?")
    code, error = told(capsys, "withdraw", home.folder, "p" + "a" * 26, "nobody")
    assert code == 2
    assert error["error"]["message"].count("this site knows no such pseudonym") == 2
    code, error = told(capsys, "influence", home.folder, "P0")
    assert (code, error["error"]["message"]) == (2, "this is no pseudonym")
    code, error = told(capsys, "import", home.folder, tmp_path / "gone.csv")
    assert (code, error["error"]["message"]) == (
        2,
        "the consent file can't be read: No such file or directory",
    )
