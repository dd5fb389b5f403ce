"""`fedai study key | sign`, `fedai site policy | review | approve`: from a signed study to a yes."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from fedai_site.home import SiteHome
from fedai_site.review import changes, review
from homes import make_home
from studies import SMALL, merged, small_study

from fedai.cli.app import run
from fedai.fingerprints import key_fingerprint

Capture = pytest.CaptureFixture[str]
PURPOSE = {
    "kind": "clinical_research", "statement": "Find nodules.", "commercial_interest": False,
    "sponsors": ["A Foundation"], "ethics": [{"board": "IRB", "number": "26-1", "expires": "2999-01-31"}],
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return make_home(tmp_path, patients=12)


def told(capsys: Capture, *words: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def write_study(folder: Path, **more: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(merged(SMALL, {"purpose": PURPOSE, **more})))
    return path


def test_a_key_is_the_owners_alone_and_is_not_overwritten(tmp_path: Path, capsys: Capture) -> None:
    code, made = told(capsys, "study", "key", tmp_path / "me.key")
    assert code == 0
    assert stat.S_IMODE((tmp_path / "me.key").stat().st_mode) == 0o600
    assert made["fingerprint"] == key_fingerprint(Path(made["public_key"]).read_bytes())
    before = (tmp_path / "me.key").read_bytes()
    assert told(capsys, "study", "key", tmp_path / "me.key")[0] == 2
    assert (tmp_path / "me.key").read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_what_is_no_key_signs_nothing(content: bytes, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "key").write_bytes(content)
    code, error = told(capsys, "study", "sign", write_study(tmp_path), "--key", tmp_path / "key")
    assert code == 2
    assert "no Ed25519 private key" in error["error"]["message"]
    assert told(capsys, "study", "sign", write_study(tmp_path), "--key", tmp_path / "gone")[0] == 2
    assert not (tmp_path / "study.yaml.sig").exists()


def test_the_agents_own_key_is_no_key_to_sign_with(home: SiteHome, tmp_path: Path, capsys: Capture) -> None:
    assert told(capsys, "study", "sign", write_study(tmp_path), "--key", home.private_key)[0] == 2


def test_a_signed_study_is_reviewed_and_approved_under_a_policy(
    home: SiteHome, tmp_path: Path, capsys: Capture
) -> None:
    study = write_study(tmp_path)
    key = told(capsys, "study", "key", tmp_path / "coordinator.key")[1]
    assert told(capsys, "study", "sign", study, "--key", tmp_path / "coordinator.key")[0] == 0
    rules = {"signers": [{"name": "office", "fingerprint": key["fingerprint"]}], "ethics_number": True,
             "purposes": ["clinical_research"], "minimum_cohort": 5, "limits": {"runs": 2}}  # fmt: skip
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(rules))
    code, policy = told(capsys, "site", "policy", home.folder, tmp_path / "policy.yaml")
    assert (code, policy["policy"]["limits"]["runs"]) == (0, 2)
    code, facts = told(capsys, "site", "review", home.folder, study)
    assert (code, facts["accepted"], facts["state"]) == (0, True, "NOT_APPROVED")
    assert facts["words"]["sponsors"] == "A Foundation"
    assert facts["signed_by"] == key["fingerprint"]
    assert facts["cohort"]["flow"]["used"] == 24
    code, approval = told(capsys, "site", "approve", home.folder, study, "--by", "Dr. Kim")
    assert (code, approval["approved_by"], approval["waits_for_second"]) == (0, "Dr. Kim", False)
    assert stat.S_IMODE(home.engineer_key.stat().st_mode) == 0o600
    assert told(capsys, "site", "review", home.folder, study)[1]["state"] == "APPROVED"
    assert run(["site", "review", str(home.folder), str(study)]) == 0
    text = capsys.readouterr().out
    assert "signed by office; accepted: office" in text
    assert "a run now: APPROVED" in text
    assert "NO  " not in text


def test_a_new_version_is_shown_against_the_last_one_that_was_approved(
    home: SiteHome, tmp_path: Path, capsys: Capture
) -> None:
    study = write_study(tmp_path)
    assert told(capsys, "site", "approve", home.folder, study)[0] == 0
    assert told(capsys, "site", "revoke", home.folder, study)[1]["revoked"]
    assert told(capsys, "site", "review", home.folder, study)[1]["state"] == "REVOKED"
    write_study(
        tmp_path, version=2, training={"rounds": 9, "optimizer": {"name": "SGD", "learning_rate": 0.1}}
    )
    facts = told(capsys, "site", "review", home.folder, study)[1]
    assert facts["compared_with"] == 1
    assert {tuple(change) for change in facts["changes"]} >= {
        ("version", "1", "2"), ("training.rounds", "2", "9"), ("training.optimizer.name", '"AdamW"', '"SGD"'),
    }  # fmt: skip
    assert all(place.startswith(("training.", "version")) for place, _, _ in facts["changes"])
    assert run(["site", "review", str(home.folder), str(study)]) == 0
    assert "since version 1" in capsys.readouterr().out


def test_a_review_names_each_broken_rule_and_writes_nothing(
    home: SiteHome, tmp_path: Path, capsys: Capture
) -> None:
    home.rules.write_text("{minimum_cohort: 500, purposes: [education]}")
    facts = told(capsys, "site", "review", home.folder, write_study(tmp_path))[1]
    broken = {clause["reason"] for clause in facts["clauses"] if not clause["holds"]}
    assert (facts["accepted"], broken) == (False, {"COHORT_TOO_SMALL", "PURPOSE"})
    assert not list(home.approvals.iterdir())


def test_without_a_policy_the_review_says_so(home: SiteHome, tmp_path: Path, capsys: Capture) -> None:
    assert told(capsys, "site", "policy", home.folder) == (0, {"ok": True, "policy": None})
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(SMALL))
    assert run(["site", "review", str(home.folder), str(tmp_path / "plain.yaml")]) == 0
    text = capsys.readouterr().out
    assert "this home has no policy.yaml" in text
    assert "nothing about commercial interest" in text
    assert "not signed" in text


def test_a_wrong_policy_is_not_put_in_place(home: SiteHome, tmp_path: Path, capsys: Capture) -> None:
    home.rules.write_text("minimum_cell: 5")
    (tmp_path / "new.yaml").write_text("minimum_cel: 6")
    code, error = told(capsys, "site", "policy", home.folder, tmp_path / "new.yaml")
    assert code == 2
    assert "did you mean 'minimum_cell'" in error["error"]["message"]
    assert home.rules.read_text() == "minimum_cell: 5"


@pytest.mark.parametrize("content", ["", "{}", "[]", "{", '{"study_sha256": "x"}', "x" * 99_999])
def test_a_signature_file_that_is_none_is_an_error(
    content: str, home: SiteHome, tmp_path: Path, capsys: Capture
) -> None:
    study = write_study(tmp_path)
    (tmp_path / "study.yaml.sig").write_text(content)
    code, error = told(capsys, "site", "approve", home.folder, study)
    assert code == 2
    assert "no signature of a study" in error["error"]["message"]
    assert not list(home.approvals.glob("*.json"))


def test_versions_that_are_alike_have_no_changes() -> None:
    assert changes(small_study(), small_study()) == []
    assert changes(small_study(), small_study(purpose=PURPOSE))[0][0] == "purpose"


def test_bytes_that_left_are_written_where_they_are_kept(
    home: SiteHome, tmp_path: Path, capsys: Capture
) -> None:
    from fedai_site.egress import Egress, seal
    from fedai_site.sent import Sent
    from fedai_site.witness import ledger_of

    settings = (home.folder / "site.yaml").read_text()
    assert "keep_sent_days: 0.0" in settings
    (home.folder / "site.yaml").write_text(settings.replace("days: 0.0", "days: 1"))
    for days, content in ((0, b"not kept"), (1, b"kept")):
        egress = Egress(ledger_of(home), Sent(home.sent, days))
        egress.pass_error(seal(ValueError()), "r-1", objects={"x": content})
    code, shown = told(capsys, "site", "ledger", "show", home.folder, "--bytes", tmp_path / "out")
    file = tmp_path / "out" / "2.bin"
    assert (code, shown["bytes"]) == (0, [[1, 8, "not kept"], [2, 4, str(file)]])
    assert file.read_bytes() == b"kept"


def test_subgroups_that_a_study_asks_for_are_said_in_words(tmp_path: Path) -> None:
    home = make_home(tmp_path, patients=6)
    asked = small_study(judgement={"subgroups": ["age_band"], "age_bands": [50]})
    said = review(home, asked, None)["words"]["tells apart"]
    assert said.startswith("test patients by age_band (under 50, 50 and older), where your policy's")
    assert "tells apart" not in review(home, small_study(), None)["words"]


def test_all_that_a_cohort_asks_for_is_said_in_words(tmp_path: Path) -> None:
    home = make_home(tmp_path, patients=6)
    asked = {
        "body_part": ["CHEST"],
        "age_years": {"at_least": 40},
        "study_years": {"at_least": 2017, "at_most": 2024},
    }
    said = review(home, small_study(cohort=asked), None)["words"]["from"]
    assert said == "CR, chest, aged 40 and more, studies of 2017 to 2024"
