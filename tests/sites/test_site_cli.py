from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from fedai_server import pki
from fedai_server.admission import key_fingerprint
from fedai_site.agent import alone
from fedai_site.home import SiteHome, create_home, open_home
from fedai_site.witness import ledger_of
from homes import CERTIFICATE, make_home, settings_for, told
from studies import SMALL

from fedai.cli.app import run
from fedai.ledger import Ledger


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    return tmp_path / "ca.pem"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(SMALL))
    return tmp_path / "study.yaml"


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return make_home(tmp_path, patients=6)


Capture = pytest.CaptureFixture[str]


def test_a_home_is_made_from_options(tmp_path: Path, ca: Path, capsys: Capture) -> None:
    options = ("--name", "north", "--server", "fl.example.org:8443", "--ca", ca)
    code, made = told(capsys, "init", tmp_path / "north", *options)
    assert code == 0
    assert Path(made["public_key"]).read_bytes().startswith(b"-----BEGIN PUBLIC KEY")
    assert open_home(tmp_path / "north").settings.name == "north"


def test_a_site_makes_a_new_key_unless_its_agent_runs(home: SiteHome, capsys: Capture) -> None:
    before = key_fingerprint(home.public_key.read_bytes())
    with alone(home.folder):
        code, told_ = told(capsys, "renew-key", home.folder)
    assert (code, key_fingerprint(home.public_key.read_bytes())) == (2, before)
    assert "running" in told_["error"]["message"]
    code, made = told(capsys, "renew-key", home.folder)
    assert (code, made["key_fingerprint"]) == (0, key_fingerprint(home.public_key.read_bytes()))
    assert made["key_fingerprint"] != before


def test_a_home_is_made_from_a_file_with_options_on_top(tmp_path: Path, ca: Path, capsys: Capture) -> None:
    (tmp_path / "conf").mkdir()
    ca.rename(tmp_path / "conf" / "ca.pem")
    file = tmp_path / "conf" / "site.yaml"
    file.write_text(
        yaml.safe_dump({"name": "north", "server": {"address": "h:1", "ca": "ca.pem"}, "threads": 3})
    )
    code, _ = told(capsys, "init", tmp_path / "east", "--config", file, "--name", "east")
    settings = open_home(tmp_path / "east").settings
    assert (code, settings.name, settings.server.address, settings.threads) == (0, "east", "h:1", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --name, --server, --ca, or --config FILE"),
        (["--name", "North", "--server", "h:1", "--ca", "CA"], "names are lower-case"),
        (["--name", "north", "--server", "h", "--ca", "CA"], "write it as host:port"),
        (["--name", "north", "--server", "h:1", "--ca", "/gone"], "no certificate at /gone"),
        (["--config", "/gone.yaml"], "can't read /gone.yaml"),
    ],
)
def test_wrong_options_make_no_home(
    options: list[str], message: str, tmp_path: Path, ca: Path, capsys: Capture
) -> None:
    code, error = told(
        capsys, "init", tmp_path / "home", *[str(ca) if option == "CA" else option for option in options]
    )
    assert code == 2
    assert message in error["error"]["message"]
    assert not (tmp_path / "home").exists()


def test_a_home_where_none_can_be_made_is_no_bug(tmp_path: Path, ca: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    options = ("--name", "north", "--server", "h:1", "--ca", ca)
    code, error = told(capsys, "init", tmp_path / "file" / "home", *options)
    assert code == 2
    assert "Not a directory" in error["error"]["message"]


def test_data_are_added_and_counted(home: SiteHome, tmp_path: Path, capsys: Capture) -> None:
    export = tmp_path / "north-export"
    words = ("add-data", home.folder, export / "images", "--labels", export / "labels.csv")
    code, added = told(capsys, *words, "--no-pixels")
    assert (code, added["found"], added["written"], added["already"]) == (0, 12, 0, 12)
    assert run(["site", "add-data", str(home.folder), str(export / "images"), "--no-pixels"]) == 0
    assert "there already" in capsys.readouterr().out


def test_pixels_are_searched_unless_told_otherwise(home: SiteHome, tmp_path: Path, capsys: Capture) -> None:
    export = tmp_path / "north-export"

    def evidence() -> list[object]:
        lines = (home.folder / "clean" / "evidence.jsonl").read_text().splitlines()
        return [json.loads(line)["pixels"] for line in lines]

    assert evidence() == [None] * 12
    code, added = told(capsys, "add-data", home.folder, export / "images")
    assert (code, added["written"] + sum(added["quarantined"].values())) == (0, 12)
    assert added["written"] > 0
    assert all(evidence())


def test_unknown_label_lines_are_told_by_number_not_by_value(
    home: SiteHome, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "labels.csv").write_text("PatientID,label\nP1,nodule\nSECRET-7,clear\n")
    images = tmp_path / "north-export" / "images"
    assert (
        run(["site", "add-data", str(home.folder), str(images), "--labels", str(tmp_path / "labels.csv")])
        == 0
    )
    shown = capsys.readouterr()
    assert "1 label lines belong to no usable image: line 3" in shown.out
    assert "SECRET-7" not in shown.out + shown.err


def test_a_yes_is_given_shown_and_taken_back(home: SiteHome, study: Path, capsys: Capture) -> None:
    code, approval = told(capsys, "approve", home.folder, study, "--by", "Dr. Who")
    assert (code, approval["study_name"], approval["approved_by"]) == (0, "small", "Dr. Who")
    assert [a["study_sha256"] for a in told(capsys, "status", home.folder)[1]["approvals"]] == [
        approval["study_sha256"]
    ]
    assert told(capsys, "revoke", home.folder, study)[1]["revoked"] is True
    assert told(capsys, "revoke", home.folder, study)[1]["revoked"] is False
    assert told(capsys, "status", home.folder)[1]["approvals"] == []


def test_a_study_of_others_is_not_approved(tmp_path: Path, study: Path, capsys: Capture) -> None:
    west = make_home(tmp_path, "west", patients=1)
    code, error = told(capsys, "approve", west.folder, study)
    assert (code, error["error"]["message"]) == (4, "the study small doesn't name this site (west)")
    assert not list(west.approvals.iterdir())


@pytest.mark.parametrize("by", ["", "  "])
def test_a_yes_needs_a_name(by: str, home: SiteHome, study: Path, capsys: Capture) -> None:
    code, error = told(capsys, "approve", home.folder, study, "--by", by)
    assert (code, error["error"]["message"]) == (2, "--by is empty")
    assert not list(home.approvals.iterdir())


def test_both_fingerprints_are_told_as_the_server_tells_them(tmp_path: Path, capsys: Capture) -> None:
    """What two people read out to each other by telephone."""
    (tmp_path / "pki").mkdir()
    pki.make_authority(tmp_path / "pki")
    authority = tmp_path / "pki" / "ca.pem"
    options = ("--name", "north", "--server", "fl.example.org:8443", "--ca", authority)
    code, made = told(capsys, "init", tmp_path / "north", *options)
    assert code == 0
    key = key_fingerprint((tmp_path / "north" / "keys" / "agent.pub").read_bytes())
    ca = pki.fingerprint(authority.read_bytes())
    assert (made["key_fingerprint"], made["ca_fingerprint"]) == (key, ca)
    status = told(capsys, "status", tmp_path / "north")[1]
    assert (status["key_fingerprint"], status["ca_fingerprint"]) == (key, ca)
    for verb in ("status", "doctor"):
        run(["site", verb, str(tmp_path / "north")])
        shown = capsys.readouterr().out
        assert key in shown, verb
        assert ca in shown, verb


def test_a_wrong_study_is_not_approved(home: SiteHome, study: Path, capsys: Capture) -> None:
    study.write_text(study.read_text().replace("quorum: 2", "quorum: 9"))
    code, error = told(capsys, "approve", home.folder, study)
    assert code == 2
    assert "rounds.quorum: quorum is 9, but only 3 sites are named" in error["error"]["message"]
    assert not list(home.approvals.iterdir())


def test_the_status_shows_a_studys_cohort(home: SiteHome, study: Path, capsys: Capture) -> None:
    code, facts = told(capsys, "status", home.folder, "--study", study)
    assert (code, facts["cohort"]["flow"]["used"]) == (0, 12)
    assert run(["site", "status", str(home.folder), "--study", str(study)]) == 0
    assert "12 used" in capsys.readouterr().out


def test_the_ledger_is_shown_and_verified(home: SiteHome, capsys: Capture) -> None:
    assert run(["site", "ledger", "show", str(home.folder)]) == 0
    assert capsys.readouterr().out == "nothing has left\n"
    ledger = ledger_of(home)
    for number in range(30):
        ledger.append(kind="update", run="small-1", task="train", round=number, bytes=99)
    whole = {"ok": True, "lines": 30, "heads": 30, "witnessed": 0, "unheaded": 0, "intact": True}
    assert told(capsys, "ledger", "verify", home.folder) == (0, whole)
    assert len(told(capsys, "ledger", "show", home.folder)[1]["lines"]) == 20
    assert len(told(capsys, "ledger", "show", home.folder, "--last", 0)[1]["lines"]) == 30
    assert run(["site", "ledger", "show", str(home.folder), "--last", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-2:] == ["29", "99"]


def test_a_broken_ledger_names_its_line_and_ends_with_3(home: SiteHome, capsys: Capture) -> None:
    ledger = Ledger(home.ledger)
    for number in range(5):
        ledger.append(kind="update", run="small-1", round=number)
    home.ledger.write_bytes(home.ledger.read_bytes().replace(b'"round": 2', b'"round": 7'))
    code, error = told(capsys, "ledger", "verify", home.folder)
    assert code == 3
    assert error["error"]["message"] == "line 3: its content doesn't match its hash"
    assert error["error"]["where"] == f"{home.ledger}:3"


def test_a_model_can_be_trained_without_a_federation(
    home: SiteHome, study: Path, tmp_path: Path, capsys: Capture
) -> None:
    code, made = told(capsys, "train", study, "--home", home.folder, "--out", tmp_path / "out")
    assert code == 0
    assert Path(made["checkpoint"]).is_file()
    assert made["steps"] > 0


@pytest.mark.parametrize("verb", ["status", "doctor", "start", "ledger verify", "ledger show"])
def test_what_is_no_home_ends_with_2_and_the_next_step(verb: str, tmp_path: Path, capsys: Capture) -> None:
    assert run(["site", *verb.split(), str(tmp_path)]) == 2
    assert "fedai site init" in capsys.readouterr().err


def approved(home: SiteHome, study: Path, capsys: Capture) -> str:
    """What `approve` prints; it says yes whatever the cohort."""
    capsys.readouterr()
    assert run(["site", "approve", str(home.folder), str(study)]) == 0
    return capsys.readouterr().out


def test_a_yes_to_a_study_that_would_use_nothing_here_warns_with_the_reasons_counted(
    home: SiteHome, tmp_path: Path, study: Path, capsys: Capture
) -> None:
    assert "warning" not in approved(make_home(tmp_path / "larger", patients=12), study, capsys)
    study.write_text(yaml.safe_dump({**SMALL, "version": 2, "cohort": {"modality": ["MG"]}}))
    said = approved(home, study, capsys)
    assert "warning: a run would use no case of this site: of 12 images 12 modality" in said
    assert f"fedai site data stats {home.folder}" in said
    empty = create_home(tmp_path / "empty", settings_for(tmp_path))
    said = approved(empty, study, capsys)
    assert "warning: there are no data in this home yet" in said
    assert f"next: fedai site add-data {empty.folder}" in said


def test_a_yes_to_a_study_that_wants_more_patients_than_there_are_warns(
    home: SiteHome, study: Path, capsys: Capture
) -> None:
    study.write_text(yaml.safe_dump({**SMALL, "cohort": {"modality": ["CR"], "minimum_patients": 60}}))
    assert "patients would train, a run needs 60: it would be refused here" in approved(home, study, capsys)
    told_ = told(capsys, "approve", home.folder, study)[1]["cohort"]
    assert (told_["flow"]["used"], told_["training_patients_wanted"]) == (12, 60)


def test_a_study_given_for_a_sites_settings_is_recognised_in_one_line(
    tmp_path: Path, study: Path, capsys: Capture
) -> None:
    code, error = told(capsys, "init", tmp_path / "home", "--config", study)
    assert code == 2
    assert error["error"]["message"] == f"{study} is a study, not a site's settings (site.yaml)"


def test_what_is_wrong_with_an_option_of_init_is_told_with_the_options_name(
    tmp_path: Path, ca: Path, capsys: Capture
) -> None:
    words = ("init", tmp_path / "home", "--name", "North", "--server", "h", "--ca", ca)
    code, error = told(capsys, *words)
    lines = error["error"]["message"].splitlines()
    assert code == 2
    assert [line.partition(":")[0] for line in lines] == ["--name", "--server"]


def test_a_folder_without_any_file_is_no_data_and_its_labels_count_all_the_same(
    home: SiteHome, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "empty").mkdir()
    code, error = told(capsys, "add-data", home.folder, tmp_path / "empty")
    assert (code, error["error"]["message"]) == (3, "no file was found here")
    assert error["error"]["where"] == str(tmp_path / "empty")
    (tmp_path / "labels.csv").write_text("PatientID,label\nP0,nodule\n")
    words = ("add-data", home.folder, tmp_path / "empty", "--labels", tmp_path / "labels.csv")
    code, error = told(capsys, *words)
    assert code == 3
    assert "12 images that were here have a label now" in error["error"]["message"]


def test_the_quarantine_of_a_home_is_found_from_the_home_or_its_clean_folder(
    home: SiteHome, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.dcm").write_text("no image")
    assert run(["site", "add-data", str(home.folder), str(tmp_path / "more")]) == 0
    assert f"next: fedai site deid review {home.folder}" in capsys.readouterr().out
    for out in (home.folder, home.folder / "clean"):
        code, found = told(capsys, "deid", "review", out)
        assert (code, len(found["items"])) == (0, 1)
    private = ("--private", home.folder / "deid")
    assert told(capsys, "deid", "review", home.folder / "clean", *private)[1] == found
