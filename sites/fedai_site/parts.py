"""Sets of patients: which of them may be told of so that no sum or difference is over too few.

Nothing here reads or writes anything; what was told of is given as sets of names.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set

MOST_STEPS = 5_000
Part = tuple[bool, Set[str]]  # whether it was told of, and its patients


def tellable(
    classes: Mapping[str, Set[int]],
    told: Sequence[Set[str]],
    cell: int,
    families: Sequence[Sequence[Set[str]]] = (),
    beside: Mapping[str, Set[int]] = {},
) -> set[str]:
    """The patients, of those in `classes` (patient -> the classes of its cases), that may be told of.

    Left out are patients of a class that fewer than `cell` have, and those without whom every part that the
    sets `told` and this one cut has `cell` patients or none. With `families` of further sets that were told
    it holds for the parts that `told` and each family cut; with `beside`, the classes of all whom the answer
    is about, for the patients of each class too.
    """
    parts = [part for family in families or [()] for part in _parts([*told, *family], classes)]
    labels = {label for of in beside.values() for label in of}
    parts += [(cut, {p for p in part if c in beside.get(p, ())}) for cut, part in parts for c in labels]
    kept, before = set(classes), None
    while kept != before:
        before = set(kept)
        kept -= _rare(classes, kept, cell)
        for was_told, part in parts:
            inside, outside = kept & part, part - kept if was_told else set()
            kept -= _too_much(_by_need(inside, kept, parts) if outside else inside, outside, cell)
    return kept if len(kept) >= cell else set()


def _parts(told: Sequence[Set[str]], patients: Iterable[str]) -> list[Part]:
    """What sets cut these and their own patients into."""
    parts: dict[frozenset[int], set[str]] = {}
    for patient in {*patients, *(patient for one in told for patient in one)}:
        parts.setdefault(frozenset(i for i, one in enumerate(told) if patient in one), set()).add(patient)
    return [(bool(sets), part) for sets, part in parts.items()]


def _by_need(inside: Set[str], kept: Set[str], parts: Sequence[Part]) -> list[str]:
    """Those first who are in most of the parts that lost somebody: leaving them out helps there too."""
    lost = [part for was_told, part in parts if was_told and not part <= kept]
    return sorted(inside, key=lambda patient: (-sum(patient in part for part in lost), patient))


def isolates(sets: Iterable[Set[str]], cell: int) -> bool:
    """Whether there is a sum or difference of what is told of `sets`, with any factors, that is one over 1 to
    `cell` - 1 patients. True also where that isn't found out within `MOST_STEPS`.

    It then holds for products over two or more patients of a set as well: with all but one of them fixed,
    they are such a sum.
    """
    distinct = sorted({frozenset(one) for one in sets}, key=sorted)
    patterns = Counter(tuple(int(p in one) for one in distinct) for p in frozenset().union(*distinct))
    open_: list[tuple[Rows, Rows, int]] = [(dict(patterns), {}, cell - 1)]
    for _ in range(MOST_STEPS):
        if not open_:
            return False
        rows, counted, left = open_.pop()  # `counted` are to be in the sum, so many more patients may be
        zero = next((row for row, patients in rows.items() if patients > left), None)
        if zero is None:
            if (rows or counted) and sum(rows.values()) <= left:
                return True
            if not rows:
                continue
            zero = next(iter(rows))
            others = {row: n for row, n in rows.items() if row != zero}
            open_.append((others, {**counted, zero: 1}, left - rows[zero]))
        still = _without(counted, zero)
        if sum(still.values()) == sum(counted.values()):
            open_.append((_without(rows, zero), still, left))
    return True


Row = tuple[int, ...]  # of some patients: by which factor each set's answer counts them
Rows = dict[Row, int]  # and how many patients


def _without(rows: Rows, zero: Row) -> Rows:
    """What is left of rows where the sum over `zero`'s patients is none; rows that are then none too go, and
    those that are multiples of each other are one.
    """
    at = next(i for i, x in enumerate(zero) if x)
    left: Counter[Row] = Counter()
    for row, patients in rows.items():
        rest = [x * zero[at] - row[at] * y for x, y in zip(row, zero, strict=True)]
        if factor := math.gcd(*rest):
            sign = 1 if next(x for x in rest if x) > 0 else -1
            left[tuple(sign * x // factor for x in rest)] += patients
    return dict(left)


def _rare(classes: Mapping[str, Set[int]], kept: Set[str], cell: int) -> set[str]:
    """Patients with a case of a class that fewer than `cell` of those kept have."""
    having: dict[int, set[str]] = {}
    for patient in kept:
        for label in classes[patient]:
            having.setdefault(label, set()).add(patient)
    return {patient for patients in having.values() if len(patients) < cell for patient in patients}


def _too_much(inside: Collection[str], outside: Set[str], cell: int) -> set[str]:
    """Whom to leave out of a part, so that it is cut into none or `cell` and more on both sides."""
    if len(inside) < cell:
        return set(inside)
    lacking = cell - len(outside) if outside else 0
    return set(list(inside)[: max(0, lacking)])
