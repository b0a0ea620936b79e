"""Mappings and sequences of a YAML or JSON document that know where each of their parts stands.

They are ordinary dictionaries and lists, keys are always text, scalars are plain str, int, float, bool and None. A
place is kept as one number, since a document has thousands and hardly any is asked for.
"""

from __future__ import annotations

from typing import Any

from stockade.audit.facts import Where

_SHIFT = 32
_MASK = (1 << _SHIFT) - 1


def pack(line: int, column: int) -> int:
    """Put a line and a column, both from 0 on, into the one number that nodes keep."""
    return (line << _SHIFT) | column


def unpack(path: str, place: int) -> Where:
    """Give the place that `pack` made a number of, with line and column from 1 on."""
    return Where(path, (place >> _SHIFT) + 1, (place & _MASK) + 1)


class Map(dict[str, Any]):
    """A mapping. `tag` is its own tag and `tags` those of its values, where they aren't YAML's ("!reset")."""

    __slots__ = ("path", "place", "places", "tag", "tags")

    def __init__(self, path: str, place: int) -> None:
        super().__init__()
        self.path = path
        self.place = place
        self.places: dict[str, int] = {}
        self.tag = ""
        self.tags: dict[str, str] = {}

    @property
    def where(self) -> Where:
        """Where the mapping begins."""
        return unpack(self.path, self.place)

    def at(self, key: str) -> Where:
        """Give the place of a key, also of one that came by a merge; of an absent one that of the mapping."""
        return unpack(self.path, self.places.get(key, self.place))

    def map(self, key: str) -> Map | None:
        """Give the mapping under a key; None where there is none or something else."""
        value = self.get(key)
        return value if isinstance(value, Map) else None

    def seq(self, key: str) -> Seq | None:
        """Give the sequence under a key; None where there is none or something else."""
        value = self.get(key)
        return value if isinstance(value, Seq) else None

    def text(self, key: str) -> str | None:
        """Give the scalar under a key as text (see `text`)."""
        return text(self.get(key))


class Seq(list[Any]):
    """A sequence. `tag` is its own tag, where it isn't YAML's."""

    __slots__ = ("path", "place", "places", "tag")

    def __init__(self, path: str, place: int) -> None:
        super().__init__()
        self.path = path
        self.place = place
        self.places: list[int] = []
        self.tag = ""

    @property
    def where(self) -> Where:
        """Where the sequence begins."""
        return unpack(self.path, self.place)

    def at(self, index: int) -> Where:
        """Give the place of an item; of one that isn't there that of the sequence."""
        return unpack(self.path, self.places[index] if 0 <= index < len(self.places) else self.place)


def text(node: Any) -> str | None:
    """Give a scalar as text, in YAML's words for truth values and numbers; None for null, mappings and sequences."""
    if isinstance(node, str):
        return node
    if isinstance(node, bool):
        return "true" if node else "false"
    return str(node) if isinstance(node, int | float) else None


_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})


def boolean(node: Any) -> bool | None:
    """Give a truth value, also written in YAML 1.1's words (yes, no, on, off) or quoted; None for anything else."""
    if isinstance(node, bool):
        return node
    if isinstance(node, str):
        word = node.lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def integer(node: Any) -> int | None:
    """Give a whole number, also one that is quoted; None for anything else."""
    if isinstance(node, bool):
        return None
    if isinstance(node, int):
        return node
    if isinstance(node, float):
        return int(node) if node.is_integer() else None
    if isinstance(node, str) and len(node) <= 20 and node.lstrip("+-").isascii() and node.lstrip("+-").isdigit():
        try:
            return int(node)
        except ValueError:
            return None
    return None
