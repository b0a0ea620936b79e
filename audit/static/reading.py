"""Takes the parts of an object, such as one of Kubernetes or a config.json, by their types.

Whoever takes the object refuses one with a part of another type. Here such a part counts as absent, since nothing that
it says would hold, and it is remembered to be told. Text that stands for a number or a truth value is taken as meant,
so that quotes never hide a privilege.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stockade.audit.documents.tree import Map, Seq
from stockade.audit.facts import Where

_TEMPLATE = re.compile(r"\{\{.*\}\}|\$[({]")
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Wrong:
    """A part of an object that is not of the type that its field has."""

    where: Where
    text: str


@dataclass(slots=True)
class Reader:
    """Reads one object and keeps what is wrong with it. Null is the same as absent, as for programs in Go."""

    wrong: list[Wrong] = field(default_factory=list)

    def mapping(self, parent: Map, key: str) -> Map | None:
        """Give a mapping, or None where there is none."""
        value = parent.get(key)
        if value is None or isinstance(value, Map):
            return value
        self.refuse(parent.at(key), key, "a mapping", value)
        return None

    def sequence(self, parent: Map, key: str) -> Seq | None:
        """Give a list, or None where there is none."""
        value = parent.get(key)
        if value is None or isinstance(value, Seq):
            return value
        self.refuse(parent.at(key), key, "a list", value)
        return None

    def mappings(self, parent: Map, key: str) -> Iterator[Map]:
        """Give the mappings of a list."""
        found = self.sequence(parent, key)
        for index, value in enumerate(found or ()):
            if isinstance(value, Map):
                yield value
            elif found is not None:
                self.refuse(found.at(index), f"{key}[{index}]", "a mapping", value)

    def texts(self, parent: Map, key: str) -> Iterator[tuple[str, Where]]:
        """Give the texts of a list and their places."""
        found = self.sequence(parent, key)
        for index, value in enumerate(found or ()):
            if isinstance(value, str) and found is not None:
                yield value, found.at(index)
            elif found is not None:
                self.refuse(found.at(index), f"{key}[{index}]", "text", value)

    def text(self, parent: Map, key: str) -> str | None:
        """Give a text; an empty one is as good as none."""
        value = parent.get(key)
        if value is None or isinstance(value, str):
            return value or None
        self.refuse(parent.at(key), key, "text", value)
        return None

    def flag(self, parent: Map, key: str) -> bool | None:
        """Give a truth value."""
        value = parent.get(key)
        if value is None or isinstance(value, bool):
            return value
        self.refuse(parent.at(key), key, "true or false", value)
        return _TRUTH.get(value.strip().lower()) if isinstance(value, str) else None

    def number(self, parent: Map, key: str) -> int | None:
        """Give a whole number."""
        value = parent.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        self.refuse(parent.at(key), key, "a whole number", value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        meant = value.strip() if isinstance(value, str) else ""
        return int(meant) if meant.isascii() and meant.isdigit() and len(meant) < 20 else None

    def refuse(self, where: Where, name: str, expected: str, value: Any) -> None:
        """Remember that a part is of a wrong type, or that it only becomes one of the right type later."""
        later = isinstance(value, str) and _TEMPLATE.search(value)
        is_ = "only filled in by a template" if later else kind_of(value)
        self.wrong.append(Wrong(where, f"{name} must be {expected} and is {is_}"))


def kind_of(value: Any) -> str:
    """Name the type of a YAML node."""
    if isinstance(value, bool):
        return "true or false"
    names = ((Map, "a mapping"), (Seq, "a list"), (str, "text"), (int, "a number"), (float, "a number"))
    return next((name for kind, name in names if isinstance(value, kind)), "nothing")
