"""Private attributes under the Retain Safe Private Option: the block of each, and what happens to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fedai_site.deidentify import private
from fedai_site.deidentify.actions import Action, dummy
from fedai_site.deidentify.checks import is_binary_number, is_unmentioned
from fedai_site.deidentify.known import PACKING, text_of
from fedai_site.deidentify.terms import is_technical

if TYPE_CHECKING:
    from fedai_site.deidentify.walk import Item, Walk

CHARACTERISTICS = 0x00080300
RULE = "private"


def declared_blocks(dataset: Dataset) -> tuple[private.Block, ...]:
    """What the object says about its private attributes in (0008,0300)."""
    if CHARACTERISTICS not in dataset or not isinstance(dataset[CHARACTERISTICS].value, Sequence):
        return ()
    return tuple(_block(item) for item in dataset[CHARACTERISTICS].value)


def _block(item: Dataset) -> private.Block:
    actions: dict[int, str] = {}
    for entry in item.get("DeidentificationActionSequence") or []:
        for element in _numbers(entry.get("IdentifyingPrivateElements")):
            actions[element & 0xFF] = str(entry.get("DeidentificationAction") or "X")
    return private.Block(
        group=next(_numbers(item.get("PrivateGroupReference")), 0),
        creator=str(item.get("PrivateCreatorReference") or ""),
        status=str(item.get("BlockIdentifyingInformationStatus") or ""),
        harmless=frozenset(number & 0xFF for number in _numbers(item.get("NonidentifyingPrivateElements"))),
        actions=actions,
    )


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif hasattr(value, "__iter__"):
        yield from (int(part) for part in value)


def creator_of(item: Item, tag: int) -> tuple[int, str]:
    """The tag of the creator of a private attribute's block, and the creator's name ('' if missing)."""
    group, element = divmod(tag, 0x10000)
    at = group << 16 | element >> 8
    if element < 0x1000 or at not in item.original:
        return at, ""
    return at, text_of(item.original.get_item(at), item.encodings).strip()


def clean_private(walk: Walk, item: Item, tag: int, element: DataElement | RawDataElement) -> Action:
    """Keep, clean or remove one private attribute; its creator comes along with the first that stays."""
    at, creator = creator_of(item, int(tag))
    if not creator or not is_technical(creator) or walk.known.is_in(creator):
        return Action.REMOVE
    written = element.VR or "UN"
    said, vr = private.decide(creator, int(tag) >> 16, int(tag) & 0xFFFF, written, walk.blocks)
    action = _apply(walk, item, tag, element, said, vr)
    if action is not Action.REMOVE:
        walk.put(item, at, "LO", creator.encode("ascii"))
    return action


def _apply(
    walk: Walk, item: Item, tag: int, element: DataElement | RawDataElement, said: str, vr: str
) -> Action:
    if said == "X" or (vr == "SQ" and element.VR != "SQ"):
        return Action.REMOVE
    if vr == "SQ":
        return walk.sequence(item, tag)
    if said in ("Z", "D"):
        walk.put(item, tag, vr, dummy(vr) if said == "D" else b"")
        return Action.DUMMY if said == "D" else Action.EMPTY
    if said == "U":
        return walk.map_uids(item, tag, element)
    if vr in ("DA", "DT", "TM"):
        moved = walk.dates.value(vr, text_of(element, item.encodings))
        if moved is None:
            return Action.REMOVE
        walk.put(item, tag, vr, moved.encode("ascii"))
        return Action.DATE
    return _checked(walk, item, tag, element, vr)


def _checked(walk: Walk, item: Item, tag: int, element: DataElement | RawDataElement, vr: str) -> Action:
    value = walk.value(item, tag, element, vr)
    if vr in PACKING:
        is_clean = item.little and is_binary_number(value) if element.VR == "UN" else is_binary_number(value)
    else:
        texts = value.text().split("\\")
        is_clean = is_unmentioned(value) and private.is_clean(vr, texts, walk.known.words)
    if not is_clean or (not value.raw.isascii() and vr not in PACKING):
        return Action.REMOVE
    walk.put(item, tag, vr, value.raw)
    return Action.KEEP
