"""Immutable records without the cost of importing `dataclasses`.

`import dataclasses` costs 13 ms of a command that should take 20 (it brings inspect, ast, re and more), so the
modules on the path of `stockade run` use this instead. Type checkers treat a Record like a frozen dataclass.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_: object) -> Callable[[T], T]:
        """Stand in for typing.dataclass_transform, whose import costs 9 ms."""
        return lambda cls: cls


_MISSING = object()
_set = object.__setattr__


@dataclass_transform(frozen_default=True)
class RecordType(type):
    """Turns the annotations of a class into slots, an initialiser, equality and a repr."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> RecordType:
        """Make the class; annotations marked ClassVar stay class attributes."""
        own = {
            field: body.pop(field, _MISSING)
            for field, annotation in body.get("__annotations__", {}).items()
            if not str(annotation).startswith("ClassVar")
        }
        inherited: dict[str, object] = {}
        for base in reversed(bases):
            inherited |= getattr(base, "_fields", {})
        body["__slots__"] = tuple(own)
        body["_fields"] = inherited | own
        return super().__new__(mcs, name, bases, body)


class Record(metaclass=RecordType):
    """Base of all records: construct by position or keyword, compare and hash by value, never assign."""

    _fields: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = type(self)._fields
        if kwargs or len(args) != len(fields):  # readers of /proc give all by position, and make thousands
            args = self._arranged(args, kwargs)
        for name, value in zip(fields, args, strict=True):
            _set(self, name, value)

    @classmethod
    def _arranged(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Give the values of all fields in their order, or raise TypeError."""
        fields = cls._fields
        if len(args) > len(fields):
            raise TypeError(f"{cls.__name__} takes {len(fields)} values, got {len(args)}")
        values = dict(zip(fields, args, strict=False))
        for name in kwargs:
            if name not in fields or name in values:
                raise TypeError(f"{cls.__name__}: unexpected or repeated {name!r}")
        values = fields | values | kwargs
        for name, value in values.items():
            if value is _MISSING:
                raise TypeError(f"{cls.__name__} needs {name!r}")
        return tuple(values.values())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self)._fields)
        return f"{type(self).__name__}({values})"

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # pickle and copy would assign to the fields
        return type(self), self._values()

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in type(self)._fields)

    def replace(self, **changes: Any) -> Self:
        """Give a copy in which the named fields have other values."""
        values = {name: getattr(self, name) for name in type(self)._fields}
        return type(self)(**(values | changes))
