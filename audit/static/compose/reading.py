"""Takes the parts of a compose file by their types, and remembers what is of a wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockade.audit.documents.load import Broken
from stockade.audit.documents.tree import Map, Seq, boolean, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.audit.facts import Where

# compose-go casts these words (interpolation/cast.go), besides those of YAML 1.1
_CAST = {"1": True, "t": True, "0": False, "f": False}
HINT = "it counts as absent; compose refuses the file"


class Reader:
    """Reads one project. A part of a wrong type counts as absent, since nothing that it says would hold."""

    def __init__(self) -> None:
        self.wrong: list[Broken] = []
        self._told: set[tuple[Where, str]] = set()

    def refuse(self, where: Where, message: str, *, hint: str = HINT) -> None:
        """Remember that a part is wrong; each place is told once."""
        if (where, message) not in self._told:
            self._told.add((where, message))
            self.wrong.append(Broken(where, message, hint=hint))

    def expect(self, node: Map, key: str, expected: str) -> None:
        """Remember that the value of a key is no `expected`."""
        self.refuse(node.at(key), f"{key} must be {expected} and is {kind_of(node.get(key))}")

    def map(self, node: Map, key: str) -> Map | None:
        """Give a mapping; None where there is none."""
        value = node.get(key)
        if value is None or isinstance(value, Map):
            return value
        self.expect(node, key, "a mapping")
        return None

    def text(self, node: Map, key: str) -> str | None:
        """Give a scalar as text; None where there is none."""
        value = node.get(key)
        if isinstance(value, Map | Seq):
            self.expect(node, key, "text")
            return None
        return text(value)

    def flag(self, node: Map, key: str) -> bool | None:
        """Give a truth value, also one that is written as text."""
        value = node.get(key)
        if value is None:
            return None
        known = boolean(value)
        if known is None:
            known = _CAST.get(str(value).strip().lower()) if isinstance(value, str | int) else None
        if known is None and not (isinstance(value, str) and "$" in value):
            self.expect(node, key, "true or false")
        return known

    def texts(self, node: Map, key: str, *, single: bool = False) -> Iterator[tuple[str, Where]]:
        """Give the scalars of a list with their places; with `single` also one without a list around it."""
        value = node.get(key)
        if value is None:
            return
        if not isinstance(value, Seq):
            only = text(value)
            if single and only is not None:
                yield only, node.at(key)
            else:
                self.expect(node, key, "a list")
            return
        for index, item in enumerate(value):
            word = text(item)
            if word is not None:
                yield word, value.at(index)
            else:
                self.refuse(value.at(index), f"{key}[{index}] must be text and is {kind_of(item)}")

    def items(self, node: Map, key: str) -> Iterator[tuple[Any, Where]]:
        """Give the entries of a list, text or mappings, with their places."""
        value = node.get(key)
        if value is None:
            return
        if not isinstance(value, Seq):
            self.expect(node, key, "a list")
            return
        for index, item in enumerate(value):
            if isinstance(item, Map) or text(item) is not None:
                yield item, value.at(index)
            else:
                self.refuse(value.at(index), f"{key}[{index}] must be text or a mapping and is {kind_of(item)}")

    def pairs(self, node: Map, key: str) -> Iterator[tuple[str, str | None, Where]]:
        """Give name, value and place of NAME=VALUE, as a list or a mapping; a value is None where none is written."""
        value = node.get(key)
        if isinstance(value, Map):
            for name, each in value.items():
                if isinstance(each, Map | Seq):
                    self.refuse(value.at(name), f"{key}.{name} must be text and is {kind_of(each)}")
                else:
                    yield name, text(each), value.at(name)
            return
        for word, where in self.texts(node, key):
            name, equals, rest = word.partition("=")
            yield name.strip(), rest if equals else None, where


def kind_of(value: Any) -> str:
    """Name the type of a YAML node, and a word as it stands."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return repr(value[:40])
    names = ((Map, "a mapping"), (Seq, "a list"), (int, "a number"), (float, "a number"))
    return next((name for kind, name in names if isinstance(value, kind)), "nothing")
