from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from dicom_files import SECRET, encode, parse, radiograph
from fedai_site.deidentify import Deidentifier, load_profile, write
from fedai_site.deidentify.iod import iod, known_sop_classes
from fedai_site.deidentify.places import Place
from fedai_site.deidentify.profile import BASIC
from fedai_site.deidentify.rules import decide
from fedai_site.deidentify.table import load_table, standard_vr
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary

CT, CR, ENHANCED_MR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "1", "4.1"))
GRAYSCALE_STATE = "1.2.840.10008.5.1.4.1.1.11.1"


@pytest.mark.parametrize(
    ("sop_class", "path", "kind"),
    [
        (CT, [0x00080018], "1"),
        (CT, [0x00080020], "2"),
        (CT, [0x00080070], "2"),
        (CT, [0x00081030], "3"),
        (CT, [0x00189346], "3"),
        (CR, [0x00185101], "2"),
        (ENHANCED_MR, [0x0008002A], "1C"),
        (ENHANCED_MR, [0x00081090], "1"),
        (ENHANCED_MR, [0x52009230, 0x00209111, 0x00189074], "1C"),
        (GRAYSCALE_STATE, [0x00700082], "1"),
        (CT, [0x00091001], ""),
        (CR, [0x30060080], ""),
    ],
)
def test_the_type_of_an_attribute_depends_on_object_and_place(
    sop_class: str, path: list[int], kind: str
) -> None:
    level = iod(sop_class)
    for step in path[:-1]:
        level = level.below(step)
    assert level.type(path[-1]) == kind


def test_sop_classes_of_the_iods_are_the_standard_s() -> None:
    known = known_sop_classes()
    assert len(known) > 170
    assert sum(uid in UID_dictionary for uid in known) > 160


def test_an_unknown_object_is_taken_for_what_nearly_all_objects_are_made_of() -> None:
    assert iod("1.2.3").type(0x00100010) == "2"
    assert iod("1.2.3").type(0x0020000D) == "1"


def test_a_sequence_where_the_iod_has_none_is_taken_as_anywhere_else() -> None:
    assert iod(CR).below(0x00081140).type(0x00081155) == "1"
    assert iod(CR).below(0x00189346).type(0x00080104) in ("1", "1C")


@pytest.mark.parametrize("code", ["X/Z", "X/D", "X/Z/D", "Z/D"])
def test_a_composite_action_is_the_mildest_that_keeps_the_object_valid(code: str) -> None:
    tag = next(
        tag for tag, row in load_table().rows.items() if (row.basic == code and standard_vr(tag) == "LO") or
        (row.basic == code and standard_vr(tag) == "DA")
    )  # fmt: skip
    found = [
        decide(Place(tag, standard_vr(tag), standard_vr(tag), kind), BASIC).action for kind in ("1", "2", "3")
    ]
    needed = "dummy"
    wanted = {
        "X/Z": [needed, "empty", "remove"],
        "X/D": [needed, "dummy", "remove"],
        "X/Z/D": [needed, "empty", "remove"],
        "Z/D": [needed, "empty", "empty"],
    }
    assert found == wanted[code]


def test_where_the_iod_requires_a_value_that_may_not_stay_a_dummy_stands() -> None:
    image = radiograph(SOPClassUID=ENHANCED_MR, Manufacturer="Zebulon", ManufacturerModelName="Zebulon")
    image.SoftwareVersions, image.DeviceSerialNumber = "Zebulon", "Zebulon"
    image.AcquisitionDateTime, image.ContentQualification = "20240229101010", "ZEBULON"
    kept = parse(write(Deidentifier(SECRET).clean(parse(encode(image)))))
    for name in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber"):
        assert kept[name].value == "ANONYMIZED", name
    assert kept.AcquisitionDateTime == "19000101000000"
    assert kept.ContentQualification == "ANONYMIZED"
    plain = parse(write(Deidentifier(SECRET).clean(parse(encode(radiograph(Manufacturer="Zebulon"))))))
    assert plain["Manufacturer"].is_empty


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
    item.PurposeOfReferenceCodeSequence = Sequence([])
    return item


def test_dates_at_every_depth_move_by_one_offset_and_intervals_stay() -> None:
    image = radiograph(StudyDate="20240229", SeriesDate="20240301", StudyTime="101500")
    deep = Dataset()
    deep.AcquisitionDate, deep.DateOfSecondaryCapture = "20240229", "20240302"
    middle = Dataset()
    middle.ReferencedImageSequence = Sequence([deep])
    image.ReferencedImageSequence = Sequence([middle])
    engine = Deidentifier(SECRET, load_profile("basic+modified-dates"))
    kept = parse(write(engine.clean(parse(encode(image)))))
    inner = kept.ReferencedImageSequence[0].ReferencedImageSequence[0]
    assert kept.StudyDate == inner.AcquisitionDate != "20240229"
    days = [datetime.strptime(date, "%Y%m%d") for date in (kept.StudyDate, kept.SeriesDate)]
    assert days[1] - days[0] == timedelta(days=1)
    assert kept.StudyTime == "101500"
    assert kept.PatientBirthDate == ""


def test_an_age_above_89_and_a_rare_size_are_cut_off() -> None:
    image = radiograph(PatientAge="097Y", PatientSize="2.3", PatientWeight="71.5", PatientSex="F")
    kept = Deidentifier(SECRET, load_profile("basic+patient")).clean(parse(encode(image))).dataset
    assert kept.PatientAge == "090Y"
    assert kept.PatientSize < 2.3
    assert (kept.PatientWeight, kept.PatientSex) == (71.5, "F")
    assert "PatientAge" not in Deidentifier(SECRET).clean(parse(encode(image))).dataset


def test_safe_private_attributes_stay_with_their_creator_and_others_do_not() -> None:
    image = radiograph()
    philips = image.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    philips.add_new(0x0D, "FL", 1.5)
    philips.add_new(0x5F, "LO", "Zebulon")
    other = image.private_block(0x2007, "Zebulon", create=True)
    other.add_new(0x0D, "FL", 1.5)
    engine = Deidentifier(SECRET, load_profile("basic+safe-private"))
    kept = parse(write(engine.clean(parse(encode(image)))))
    private = [element for element in kept if element.tag.is_private]
    assert [element.value for element in private] == ["Philips MR Imaging DD 001", 1.5]
    assert not [element for element in Deidentifier(SECRET).clean(image).dataset if element.tag.is_private]


def test_what_an_object_says_about_its_private_attributes_counts_and_is_not_passed_on() -> None:
    image = radiograph()
    block = image.private_block(0x0019, "SIEMENS MR", create=True)
    block.add_new(0x01, "DS", "2.5")
    block.add_new(0x02, "DS", "3.5")
    said = Dataset()
    said.PrivateGroupReference, said.PrivateCreatorReference = 0x0019, "SIEMENS MR"
    said.BlockIdentifyingInformationStatus, said.NonidentifyingPrivateElements = "MIXED", 0x01
    image.PrivateDataElementCharacteristicsSequence = Sequence([said])
    engine = Deidentifier(SECRET, load_profile("basic+safe-private"))
    kept = parse(write(engine.clean(parse(encode(image)))))
    assert [str(element.value) for element in kept if element.tag.is_private] == ["SIEMENS MR", "2.5"]
    assert 0x00080300 not in kept


def report() -> Dataset:
    def item(kind: str, code: str, meaning: str, **values: str) -> Dataset:
        name = Dataset()
        name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = code, "DCM", meaning
        found = Dataset()
        found.RelationshipType, found.ValueType, found.ConceptNameCodeSequence = (
            "CONTAINS",
            kind,
            Sequence([name]),
        )
        for key, value in values.items():
            setattr(found, key, value)
        return found

    whole = radiograph(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", PixelData=None, Modality="SR")
    whole.ValueType, whole.ContinuityOfContent = "CONTAINER", "SEPARATE"
    whole.ContentSequence = Sequence([
        item("PNAME", "121008", "Person Observer Name", PersonName="Zebulon^Z"),
        item("TEXT", "121106", "Comment", TextValue="Zebulon came for his chest"),
        item("DATE", "121125", "Date", Date="20240229"),
        item("UIDREF", "121126", "UID", UID="1.2.3.4.5"),
        item("TEXT", "121110", "Patient Presentation", TextValue="Hong Gildong, 010-1234-5678"),
    ])  # fmt: skip
    return whole


@pytest.mark.parametrize(
    "profile", ["basic", "basic+structured-content", "basic+structured-content+descriptors+modified-dates"]
)
def test_a_structured_report_keeps_its_shape_and_loses_its_people(profile: str) -> None:
    out = write(Deidentifier(SECRET, load_profile(profile)).clean(parse(encode(report()))))
    for trace in (b"Zebulon", b"20240229", b"1.2.3.4.5", b"Gildong", b"1234-5678"):
        assert trace not in out
    assert len(parse(out).ContentSequence) >= 1
