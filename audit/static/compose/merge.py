"""Puts one service or file over another, as compose does (compose-spec, 13-merge.md), and keeps each key's place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockade.audit.documents.tree import Map, Seq, text

if TYPE_CHECKING:
    from stockade.audit.facts import Where

#: lists that the later one replaces
_REPLACED = frozenset({"command", "entrypoint", "test"})
#: settings that are lists of NAME=VALUE or mappings
_PAIRS = frozenset({"environment", "labels", "sysctls", "annotations", "args", "extra_hosts"})
#: settings that are lists of names or mappings by name
_NAMED = frozenset({"depends_on", "networks"})
#: lists whose entries replace each other by what they are mounted at
_BY_TARGET = frozenset({"volumes", "secrets", "configs", "devices"})


class Joined(Map):
    """A mapping of parts of several files, each with its own place."""

    __slots__ = ("_at", "_where")

    def __init__(self, where: Where) -> None:
        super().__init__(where.path, 0)
        self._where = where
        self._at: dict[str, Where] = {}

    @property
    def where(self) -> Where:
        """Where the mapping begins in the file that decides last."""
        return self._where

    def at(self, key: str) -> Where:
        """Give the place of a key."""
        return self._at.get(key, self._where)

    def put(self, key: str, value: Any, where: Where) -> None:
        """Set a key and its place."""
        self[key] = value
        self._at[key] = where


class JoinedList(Seq):
    """A sequence of parts of several files."""

    __slots__ = ("_at", "_where")

    def __init__(self, where: Where) -> None:
        super().__init__(where.path, 0)
        self._where = where
        self._at: list[Where] = []

    @property
    def where(self) -> Where:
        """Where the first part begins."""
        return self._where

    def at(self, index: int) -> Where:
        """Give the place of an item."""
        return self._at[index] if 0 <= index < len(self._at) else self._where

    def put(self, value: Any, where: Where) -> None:
        """Add an item and its place."""
        self.append(value)
        self._at.append(where)


def merged(base: Map, over: Map) -> Map:
    """Give `base` with `over` put over it. Neither is changed."""
    found = Joined(over.where)
    for key, value in base.items():
        found.put(key, value, base.at(key))
    for key, value in over.items():
        tag = over.tags.get(key) or (value.tag if isinstance(value, Map | Seq) else "")
        before = base.get(key)
        if tag == "!reset":
            found.pop(key, None)
        elif before is None or tag == "!override":
            found.put(key, value, over.at(key))
        elif value is not None:
            _put(found, key, (before, base.at(key)), (value, over.at(key)))
    return found


def _put(found: Joined, key: str, before: tuple[Any, Where], after: tuple[Any, Where]) -> None:
    old, new = before[0], after[0]
    if key in _PAIRS:
        old, new = _mapping(old), _mapping(new)
    elif key in _NAMED:
        old, new = _by_name(old), _by_name(new)
    elif key == "build":
        old, new = _context(*before), _context(*after)
    if isinstance(old, Map) and isinstance(new, Map):
        found.put(key, merged(old, new), after[1])
    elif isinstance(old, Seq) and isinstance(new, Seq) and key not in _REPLACED:
        found.put(key, _lists(key, old, new), after[1])
    else:
        found.put(key, new, after[1])


def _mapping(value: Any) -> Any:
    if not isinstance(value, Seq):
        return value
    found = Joined(value.where)
    for index, item in enumerate(value):
        name, equals, rest = str(text(item) or "").partition("=")
        found.put(name, rest if equals else None, value.at(index))
    return found


def _by_name(value: Any) -> Any:
    if not isinstance(value, Seq):
        return value
    found = Joined(value.where)
    for index, item in enumerate(value):
        found.put(str(text(item) or ""), None, value.at(index))
    return found


def _context(value: Any, where: Where) -> Any:
    if not isinstance(value, str):
        return value
    found = Joined(where)
    found.put("context", value, where)
    return found


def _lists(key: str, old: Seq, new: Seq) -> Seq:
    found = JoinedList(old.where)
    taken = {identity for item in new if (identity := _identity(key, item)) is not None}
    for index, item in enumerate(old):
        if _identity(key, item) not in taken:
            found.put(item, old.at(index))
    for index, item in enumerate(new):
        found.put(item, new.at(index))
    return found


def _identity(key: str, item: Any) -> Any:
    """Give what makes an entry the same as another one, of which the later one holds; None for what just adds up."""
    if key in _BY_TARGET:
        if isinstance(item, Map):
            return item.text("target") or item.text("source")
        parts = str(text(item) or "").split(":")
        return parts[1] if len(parts) > 1 else parts[0]
    if isinstance(item, Map):
        return tuple(item.text(name) for name in ("host_ip", "target", "published", "protocol"))
    return text(item)


def without_resets(node: Map) -> Map:
    """Give a mapping of a file that nothing lies under: what !reset takes away is left out."""
    gone = [
        key
        for key, value in node.items()
        if node.tags.get(key) == "!reset" or (isinstance(value, Map | Seq) and value.tag == "!reset")
    ]
    if not gone:
        return node
    found = Joined(node.where)
    for key, value in node.items():
        if key not in gone:
            found.put(key, value, node.at(key))
    return found
