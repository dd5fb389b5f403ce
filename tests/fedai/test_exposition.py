"""What we write as Prometheus' text format, its own parser reads back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fedai.exposition import Family, page, single

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text('\\"\nab{},= ')
NUMBER = st.floats() | st.integers(-(2**53), 2**53)


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


@given(TEXT, TEXT, NUMBER)
def test_labels_and_numbers_come_back_as_they_were(run: str, site: str, value: float) -> None:
    family = Family("fedai_things", "Things.", samples=[({"run": run, "site": site}, value)])
    (read,) = text_string_to_metric_families(page([family]))
    (sample,) = read.samples
    assert sample.labels == {"run": run, "site": site}
    assert same(sample.value, value)


@given(st.text('\\"\nabn'))
def test_a_help_text_comes_back_as_it_was(text: str) -> None:
    (read,) = text_string_to_metric_families(page([single("fedai_things", f"x{text}x", 1)]))
    assert (read.documentation, read.type) == (f"x{text}x", "gauge")


def test_a_counter_is_one_and_a_family_without_samples_is_left_out() -> None:
    counter = Family("fedai_bytes_total", "Bytes.", "counter")
    assert page([counter]) == ""
    counter.add(2**40, run="small-1")
    (read,) = text_string_to_metric_families(page([counter]))
    assert (read.type, read.samples[0].value) == ("counter", 2**40)


@pytest.mark.parametrize(
    "family", [single("fedai-things", "Things.", 1), Family("a", "A.", samples=[({"b-c": "d"}, 1)])]
)
def test_a_name_that_the_format_does_not_have_is_refused(family: Family) -> None:
    with pytest.raises(ValueError, match="can't name"):
        page([family])
