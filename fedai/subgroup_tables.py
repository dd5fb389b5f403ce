"""Results by subgroup as tables of plain text, and as a section of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fedai import charts
from fedai.figures import display_name, escape, html_table, note_of
from fedai.results import FEWEST, Comparison
from fedai.subgroup_results import SubgroupResult, subgroups_of, variables_of, worst_subgroup
from fedai.tables import Table, number, spell
from fedai.wire import MINIMUM_CELL

WORDS = {"sex": "sex", "age_band": "age in years", "manufacturer": "maker of the scanner"}
ALL = "all of these sites"
WITHIN = (
    "AUROC over pairs of images of the same site, so it can differ from that of all sites together. "
    "Subgroups that no site tells of are left out: nobody is of them, a site's policy doesn't allow it, or "
    f"they, or what they would leave, are of fewer than {MINIMUM_CELL} patients (for that reason a few are "
    "left out of larger ones too)."
)
LOWEST = (
    f"Intervals need {FEWEST} patients on each side and aren't adjusted for the number of subgroups; being "
    "the lowest of several, the worst subgroup looks worse than it is."
)


def subgroup_tables(comparison: Comparison, name: Callable[[str], str] = str) -> list[Table]:
    """For each variable the main model's results, and if there are several models the AUROC of each."""
    made = []
    for variable in variables_of(comparison):
        made.append(_table_of_main(comparison, variable, name))
        if len(comparison.models) > 1:
            made.append(_table_of_models(comparison, variable, name))
    return made


def _main(comparison: Comparison) -> str:
    return comparison.against if comparison.main_model else comparison.models[0].name


def _table_of_main(comparison: Comparison, variable: str, name: Callable[[str], str]) -> Table:
    model, single = _main(comparison), len(comparison.tasks) == 1
    found = subgroups_of(comparison, variable, model)
    rows = [
        (*_counted(level, s), spell(s.auroc), *(_calls(s) if single else ())) for level, s in found.items()
    ]
    lowest = worst_subgroup(found)
    if lowest:
        told = f"{lowest[0]}: {number(lowest[1].value)}"
        rows.append(("Worst subgroup", "", "", "", told, *(("", "") if single else ())))
    calls = ("Sensitivity (95% CI)", "Specificity (95% CI)") if single else ()
    header = ("Subgroup", "Cases", "Patients", "Told by", "AUROC (95% CI)", *calls)
    title = f"By {WORDS.get(variable, variable)}: {name(model)}"
    return Table(title, header, tuple(rows), f"{WITHIN} {LOWEST}")


def _counted(level: str, found: SubgroupResult) -> tuple[str, str, str, str]:
    return level or ALL, str(found.cases), str(found.patients), ", ".join(found.sites)


def _calls(found: SubgroupResult) -> tuple[str, str]:
    only = found.classes[0]
    return spell(only.sensitivity), spell(only.specificity)


def _table_of_models(comparison: Comparison, variable: str, name: Callable[[str], str]) -> Table:
    by_model = {m.name: subgroups_of(comparison, variable, m.name) for m in comparison.models}
    levels = dict.fromkeys(level for found in by_model.values() for level in found)
    rows = [
        (level or ALL, *(spell(f[level].auroc) if level in f else "–" for f in by_model.values()))
        for level in levels
    ]
    lowest = [worst_subgroup(found) for found in by_model.values()]
    told = (f"{one[0]}: {number(one[1].value)}" if one else "–" for one in lowest)
    rows.append(("Worst subgroup", *told))
    title = f"By {WORDS.get(variable, variable)}: AUROC within sites of each model (95% CI)"
    return Table(title, ("Subgroup", *map(name, by_model)), tuple(rows))


def subgroups_section(comparison: Comparison, asked: Sequence[str] = ()) -> str:
    """The section of the report; nothing where the study `asked` for no subgroups. Variables that no site
    tells of are named."""
    told = variables_of(comparison)
    missing = [WORDS.get(v, v) for v in asked if v not in told]
    if not told and not missing:
        return ""
    shown = "".join(_forest(comparison, variable) for variable in told)
    shown += "".join(html_table(table) for table in subgroup_tables(comparison, display_name))
    gaps = f"No site tells of any subgroup by {', or by '.join(missing)}." if missing else ""
    return (
        f"<section><h2>Subgroups</h2>{_worst_of_all(comparison)}{shown}"
        f"{note_of(gaps) if gaps else ''}</section>"
    )


def _worst_of_all(comparison: Comparison) -> str:
    """In words, for the main model."""
    model = _main(comparison)
    sentences = []
    for variable in variables_of(comparison):
        lowest = worst_subgroup(subgroups_of(comparison, variable, model))
        if lowest:
            words = f"By {WORDS.get(variable, variable)}, {display_name(model)} was lowest for"
            sentences.append(f"{words} {lowest[0]}: {spell(lowest[1])}.")
    return f"<p>{escape(' '.join(sentences))}</p>" if sentences else ""


def _forest(comparison: Comparison, variable: str) -> str:
    """Dots and intervals of the main model's AUROC, by level."""
    found = subgroups_of(comparison, variable, _main(comparison))
    ends = [v for s in found.values() for v in (*(s.auroc.ci95 or ()), s.auroc.value) if v is not None]
    axis = charts.axis_for("AUROC within sites", [*ends, 1.0], 0, 1)
    heading = f"By {WORDS.get(variable, variable)}: {display_name(_main(comparison))}"
    picture = charts.intervals(_bars(found), axis, heading=heading)
    return f'<figure class="wide">{picture}</figure>'


def _bars(found: Mapping[str, SubgroupResult]) -> list[charts.Bar]:
    return [
        charts.Bar(
            level or ALL,
            charts.Style(charts.DARK if not level else charts.BLUE, "", 2.2),
            s.auroc.value,
            s.auroc.ci95,
            spell(s.auroc),
            not level,
        )
        for level, s in found.items()
    ]
