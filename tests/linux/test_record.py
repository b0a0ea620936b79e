from __future__ import annotations

import copy
import pickle

import pytest

from stockade.sandbox.linux.record import Record


class Point(Record):
    x: int
    y: int = 5


class Named(Point):
    name: str = "origin"


def test_values_come_by_position_by_name_and_by_default() -> None:
    assert [(p.x, p.y) for p in (Point(1, 2), Point(1, y=2), Point(y=2, x=1), Point(1))] == [(1, 2)] * 3 + [(1, 5)]
    assert repr(Named(1, name="a")) == "Named(x=1, y=5, name='a')"


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})])
def test_missing_repeated_and_unknown_values_are_refused(args: tuple[int, ...], kwargs: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point"):
        Point(*args, **kwargs)


def test_a_record_cannot_be_changed() -> None:
    point = Point(1, 2)

    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError):
        del point.x  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError):
        point.z = 1  # pyright: ignore[reportAttributeAccessIssue]
    assert point == Point(1, 2)


def test_records_are_equal_by_value_and_only_within_their_kind() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 5) != Named(1, 5)


def test_a_changed_copy_leaves_the_original() -> None:
    point = Named(1, 2)

    assert point.replace(y=3) == Named(1, 3)
    assert point == Named(1, 2)
    with pytest.raises(TypeError):
        point.replace(z=3)


def test_records_can_be_pickled_and_copied() -> None:
    assert pickle.loads(pickle.dumps(Named(1))) == Named(1) == copy.deepcopy(Named(1))  # noqa: S301
