from __future__ import annotations

import pytest
from fedai_site.quarantine import Quarantine, Reason

from fedai import errors, wire
from fedai.errors import FedaiError

TREE = {
    errors.ConfigError: 2,
    errors.DataError: 3,
    errors.RefusedByPolicy: 4,
    errors.FederationError: 5,
    errors.OutOfTime: 6,
    errors.TrainingError: 1,
}


@pytest.mark.parametrize(("kind", "code"), TREE.items())
def test_each_class_has_the_exit_code_that_its_module_promises(kind: type[FedaiError], code: int) -> None:
    assert kind.exit_code == code
    assert f"{kind.__name__} {code} " in " ".join((errors.__doc__ or "").split())


def test_the_tree_is_whole() -> None:
    assert set(FedaiError.__subclasses__()) == set(TREE)


@pytest.mark.parametrize("kind", [*TREE, Quarantine])
def test_every_code_may_cross_the_wire_with_a_reference(kind: type[FedaiError]) -> None:
    assert wire.ERROR_PATTERN.fullmatch(f"{kind.code} 0123456789ab")


def test_what_has_no_class_of_its_own_is_a_bug() -> None:
    assert (FedaiError.exit_code, FedaiError.code) == (errors.BUG_EXIT_CODE, "BUG")


def test_a_subclass_keeps_its_parents_code() -> None:
    assert Quarantine(Reason.NOT_DICOM).exit_code == errors.DataError.exit_code


def test_an_error_says_where_what_and_what_next() -> None:
    assert str(FedaiError("is wrong", hint="mend it", where="a.yaml:3")) == "a.yaml:3: is wrong (mend it)"
    assert str(FedaiError("is wrong")) == "is wrong"
