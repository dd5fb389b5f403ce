"""What will happen to each attribute of a data set, and why. No value is ever shown.

The page docs/deidentification-table.md is written from the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

from fedai_site.deidentify import directory
from fedai_site.deidentify.actions import Action, Decision
from fedai_site.deidentify.dates import Dates
from fedai_site.deidentify.iod import Level, iod
from fedai_site.deidentify.known import gather
from fedai_site.deidentify.places import Place
from fedai_site.deidentify.profile import BASIC, Option, Profile
from fedai_site.deidentify.reading import FAULTS
from fedai_site.deidentify.rules import RULES, decide
from fedai_site.deidentify.safeprivate import declared_blocks
from fedai_site.deidentify.silence import silenced
from fedai_site.deidentify.table import load_table, standard_vr
from fedai_site.deidentify.walk import Element, Item, Names, Plan, Walk
from fedai_site.quarantine import Quarantine, Reason

NOBODY = Names(
    "pseudonym", "", lambda item, encodings: "pseudonym", lambda uid: "2.25.1", lambda part: "PSEUDONYM"
)
TYPES = (("1", "Type 1"), ("2", "Type 2"), ("3", "Type 3 or not in the IOD"))


@dataclass(frozen=True)
class Explained:
    """One attribute: where it stands ('(0040,A730)[2].(0040,A160)', items counted from 1), its keyword ('' if
    nobody knows it), its VR, what happens to it, the rule that says so, and why.
    """

    path: str
    keyword: str
    vr: str
    action: str
    rule: str
    why: str


class Explainer(Walk):
    """A walk that writes down what it does."""

    def __init__(self, plan: Plan, dataset: Dataset, *, is_directory: bool) -> None:
        dates = Dates(plan.profile.dates, -365 if plan.profile.dates == "shift" else 0)
        super().__init__(plan, NOBODY, gather(dataset), dates, is_directory=is_directory)
        self.blocks = declared_blocks(dataset)
        self.found: list[Explained] = []
        self._steps: list[str] = []
        self._numbers: list[int] = []

    def item(
        self,
        original: Dataset,
        level: Level,
        depth: int = 0,
        inherited: tuple[str, ...] = (),
        overriding: dict[int, Decision] | None = None,
    ) -> Dataset:
        """As the walk's, counting items."""
        if self._numbers:
            self._numbers[-1] += 1
        return super().item(original, level, depth, inherited, overriding)

    def apply(self, item: Item, tag: int, element: Element, decision: Decision) -> Action:
        """As the walk's, and written down."""
        pairs = zip(self._steps, self._numbers, strict=True)
        path = "".join(f"{step}[{number}]." for step, number in pairs) + show(tag)
        vr = element.VR or standard_vr(int(tag)) or "UN"
        number = len(self.found)
        self.found.append(Explained(path, keyword(int(tag)), vr, "", decision.rule, decision.why))
        self._steps.append(show(tag))
        self._numbers.append(0)
        try:
            action = super().apply(item, tag, element, decision)
        finally:
            self._steps.pop()
            self._numbers.pop()
        why = decision.why if action == decision.action else self._why_not(decision)
        self.found[number] = replace(self.found[number], action=action.value, why=why)
        return action

    @staticmethod
    def _why_not(decision: Decision) -> str:
        return f"{decision.why}; the value isn't {decision.check}" if decision.check else decision.why


def show(tag: int) -> str:
    """(gggg,eeee)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def keyword(tag: int) -> str:
    """The Standard's keyword, '' if there is none."""
    entry = DicomDictionary.get(tag)
    return str(entry[4]) if entry else ""


def explain(dataset: Dataset, profile: Profile = BASIC) -> Iterator[Explained]:
    """Every attribute at every depth, in the order of the file. Raises Quarantine as the engine does."""
    from fedai_site.deidentify.engine import sop_class_of

    with silenced():
        try:
            sop_class = sop_class_of(dataset)
            is_directory = directory.is_directory(dataset, sop_class)
            explainer = Explainer(Plan(profile), dataset, is_directory=is_directory)
            explainer.item(dataset, iod(sop_class))
        except FAULTS as error:
            raise Quarantine(Reason.UNREADABLE, type(error).__name__) from None
    yield from explainer.found


PAGE = """# What happens to which attribute

This page is written by the rules themselves (`fedai_site.deidentify.explain.table_markdown`); a test compares them.
Table E.1-1 of DICOM PS3.15, edition {edition}, SHA-256 of its source `{sha256}`.

## The rules, in their order

The first rule that has an answer decides; what no rule allows is removed.

| rule | attributes | what happens (Basic Profile) |
|---|---|---|
{rules}

## Every listed attribute

By the attribute's Type in the object's IOD at its place. K keeps (of a sequence: its items, cleaned), C cleans; where
several chosen options speak about one attribute, C goes before K. Ages, sizes and weights that are kept lose their
extremes; text that is kept may not hold a name or number of the patient.

| tag | keyword | VR | code | {types} | options |
|---|---|---|---|---|---|---|---|
{rows}
"""  # noqa: E501


def table_markdown() -> str:
    """docs/deidentification-table.md, from the rules themselves."""
    table = load_table()
    described = [(rule.name, *pair) for rule in RULES for pair in rule.describe(BASIC)]
    return PAGE.format(
        edition=table.edition,
        sha256=table.sha256_of_source_xml,
        rules="\n".join(f"| {name} | {_cell(what)} | {_cell(action)} |" for name, what, action in described),
        types=" | ".join(title for _, title in TYPES),
        rows="\n".join(_row(tag) for tag in sorted(table.rows)),
    )


def _row(tag: int) -> str:
    row, vr = load_table().rows[tag], standard_vr(tag)
    actions = [decide(Place(tag, vr, vr, kind), BASIC).action.value for kind, _ in TYPES]
    options = ", ".join(
        f"{option.value} {row.options[option.column]}" for option in Option if option.column in row.options
    )
    cells = [show(tag), keyword(tag), vr, row.basic, *actions, options]
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
