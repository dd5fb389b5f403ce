from __future__ import annotations

import pytest
from dicom_files import SECRET, encode, parse, radiograph
from fedai_site.deidentify import Deidentifier, describe, explain, load_profile, write
from fedai_site.deidentify.rules import RULES
from fedai_site.quarantine import Quarantine
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

PROFILES = ("basic", "basic+modified-dates+descriptors", "basic+institution+patient+uids")


def image() -> Dataset:
    found = radiograph(InstitutionName="Zebulon Clinic", PatientSex="F", StudyDate="20240229", KVP="19551231")
    found.StudyDescription, found.Manufacturer = "chest of Zebulon", "SIEMENS"
    below = Dataset()
    below.ReferencedSOPInstanceUID, below.PatientName = "1.2.3.4.5", "Zebulon"
    found.ReferencedImageSequence = Sequence([below, below])
    found.private_block(0x0009, "ZEBULON", create=True).add_new(1, "LO", "Zebulon")
    return parse(encode(found))


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_explained_is_what_happens(profile: str) -> None:
    chosen = load_profile(profile)
    explained = {line.path: line.action for line in explain(image(), chosen)}
    cleaned = parse(write(Deidentifier(SECRET, chosen).clean(image())))
    kept = set(paths(cleaned))
    for path, action in explained.items():
        assert (action == "remove") == (path not in kept), path
    added = {"(0012,0062)", "(0012,0063)", "(0012,0064)", "(0028,0303)"}
    assert {path for path in kept if not path.startswith("(0012,0064)")} - set(explained) <= added


def paths(item: Dataset, before: str = "") -> list[str]:
    found = []
    for element in item:
        path = f"{before}({element.tag.group:04X},{element.tag.element:04X})"
        found.append(path)
        if element.VR == "SQ":
            for number, below in enumerate(element.value, start=1):
                found += paths(below, f"{path}[{number}].")
    return found


def test_each_attribute_is_explained_with_a_rule_and_a_reason_and_no_value() -> None:
    lines = list(explain(image()))
    assert {line.rule for line in lines} <= {rule.name for rule in RULES}
    text = "\n".join(str(line) for line in lines)
    for value in ("Zebulon", "ZEBULON", "Hong", "19551231", "MRN-1", "1.2.3.4.5", "20240229"):
        assert value not in text
    by_path = {line.path: line for line in lines}
    assert by_path["(0008,1140)[2].(0008,1155)"].action == "uid"
    assert by_path["(0008,0080)"].keyword == "InstitutionName"
    assert "isn't a number" in by_path["(0018,0060)"].why
    assert all(line.why for line in lines)


def test_explaining_leaves_the_data_set_as_it_was() -> None:
    found = image()
    list(explain(found, load_profile("basic+modified-dates")))
    assert encode(found) == encode(image())


def test_what_can_not_be_taken_apart_is_quarantined_here_too() -> None:
    broken = image()
    item = broken
    for _ in range(60):
        item.ReferencedImageSequence = Sequence([Dataset()])
        item = item.ReferencedImageSequence[0]
    with pytest.raises(Quarantine):
        list(explain(broken))


def test_every_rule_describes_itself_for_every_profile() -> None:
    for profile in PROFILES:
        lines = describe(load_profile(profile))
        assert len(lines) >= len(RULES)
        assert all(": " in line for line in lines)
