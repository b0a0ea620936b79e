"""Reads YAML and JSON into trees, and refuses what is built to hurt whoever reads it.

libyaml's events are taken one by one instead of PyYAML's own composer, which recurses in C and crashes on deep nesting,
expands no budget and takes the last of several equal keys in silence. Scalars are those of YAML 1.2's core schema: `no`
and `0755` are text.
"""

import re
from typing import Any

import yaml

from stockade.audit.documents.tree import Map, Seq, pack, unpack
from stockade.audit.facts import Where
from stockade.errors import StockadeError

#: bytes of one file; `kubectl get pods -A -o json` of a large cluster has some ten million
LARGEST = 32 << 20
#: levels of nesting; Kubernetes has ten, OpenAPI schemas of custom resources thirty
DEEPEST = 200
#: mappings, sequences and scalars of one file
MOST_NODES = 2_000_000
#: of which aliases and merges may add so many when each is counted where it is used
MOST_ALIASED = 200_000
#: documents of one file
MOST_DOCUMENTS = 10_000


class Broken(StockadeError):
    """A file, or a part of it, that can't be read. `where` is the place, `text` the message without it."""

    def __init__(self, where: Where, text: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {text}", hint=hint)
        self.where = where
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it pass from the process that reads to the one that reports."""
        return (Broken, (self.where, self.text))


def documents(data: bytes, path: str) -> tuple[Any, ...]:
    """Give the documents of a YAML or JSON file; empty ones are None. Raises Broken for the whole file."""
    if len(data) > LARGEST:
        raise Broken(Where(path), f"{len(data) >> 20} MiB are more than the {LARGEST >> 20} MiB that a file may have")
    content = decoded(data, path)
    if content.lstrip()[:1] in {"{", "["}:
        found = _json(content, path)
        if found is not None:
            return found
    return _Builder(path).build(content)


def _json(content: str, path: str) -> tuple[Any, ...] | None:
    """Read JSON; None for what isn't, which may be YAML in its flow style unless the name says otherwise."""
    from stockade.audit.documents.json_ import NotJson, Reader

    def refuse(place: int, text: str) -> Broken:
        return Broken(unpack(path, place), text)

    try:
        return Reader(content, path, refuse, (DEEPEST, MOST_NODES, MOST_DOCUMENTS)).read()
    except NotJson as error:
        if not path.endswith(".json"):
            return None
        before = content[: error.offset]
        where = Where(path, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise Broken(where, f"not JSON: {error.text[:1].lower()}{error.text[1:]}") from None


def decoded(data: bytes, path: str) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark. Raises Broken with the place of what is neither."""
    encoding = "utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8"
    try:
        content = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start)
        start = data.rfind(b"\n", 0, error.start) + 1
        column = len(data[start : error.start].decode(encoding, "replace"))
        raise Broken(Where(path, line + 1, column + 1), f"not UTF-8: byte 0x{data[error.start]:02x}") from None
    content = content.removeprefix("\ufeff")
    found = _CONTROL.search(content)
    if found:
        before = content[: found.start()]
        where = Where(path, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise Broken(where, f"control character 0x{ord(found.group()):02x}: this is no text")
    return content


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$")
_BASED = re.compile(r"0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    **{word: float("nan") for word in (".nan", ".NaN", ".NAN")},
    **{sign + word: float(sign + "inf") for sign in ("", "-", "+") for word in (".inf", ".Inf", ".INF")},
}  # fmt: skip
_NUMERIC = frozenset("+-.0123456789")
_LONGEST_NUMBER = 40
_TAG = "tag:yaml.org,2002:"


def resolve(value: str) -> Any:
    """Resolve a plain scalar by YAML 1.2's core schema; numbers with a leading zero stay text."""
    if value in _WORDS:
        return _WORDS[value]
    if value[0] not in _NUMERIC or len(value) > _LONGEST_NUMBER:
        return value
    if _INTEGER.match(value):
        return int(value)
    if _BASED.match(value):
        return int(value, 0)
    return float(value) if _FLOAT.match(value) else value


def _scalar(event: Any) -> Any:
    tag = event.tag
    if tag is None or tag == "!":
        return resolve(event.value) if event.implicit[0] else event.value
    if tag in {_TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null"}:
        return resolve(event.value)
    return event.value


class _Level:
    """A mapping or sequence that is still being read."""

    __slots__ = ("anchor", "before", "key", "merges", "node", "place")

    def __init__(self, node: Any, anchor: str | None, before: int) -> None:
        self.node = node
        self.anchor = anchor
        self.before = before
        self.key: str | None = None
        self.place = 0
        self.merges: list[tuple[Any, int]] = []


class _Builder:
    """Builds the trees of one file from its events, without recursion."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.nodes = 0
        self.aliased = 0
        self.levels: list[_Level] = []
        self.anchors: dict[str, tuple[Any, int, str]] = {}
        self.roots: list[Any] = []

    def build(self, content: str) -> tuple[Any, ...]:
        try:
            for event in yaml.parse(content, Loader=yaml.CSafeLoader):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = Where(self.path, mark.line + 1, mark.column + 1) if mark else Where(self.path)
            raise Broken(where, _problem(error)) from None
        except yaml.YAMLError as error:
            raise Broken(Where(self.path), str(error).splitlines()[0]) from None
        return tuple(self.roots)

    def _take(self, event: Any) -> None:
        kind = event.__class__
        if kind is yaml.ScalarEvent:
            self._add(event, _scalar(event), 1)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            self._open(event, kind is yaml.MappingStartEvent)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._close()
        elif kind is yaml.AliasEvent:
            self._alias(event)
        elif kind is yaml.DocumentStartEvent:
            self.anchors.clear()
            if len(self.roots) == MOST_DOCUMENTS:
                raise self._broken(event, f"more than {MOST_DOCUMENTS} documents")

    def _open(self, event: Any, mapping: bool) -> None:  # noqa: FBT001 - private, called once
        mark = event.start_mark
        if len(self.levels) == DEEPEST:
            raise self._broken(event, f"nested more than {DEEPEST} levels deep")
        if self.levels and isinstance(self.levels[-1].node, Map) and self.levels[-1].key is None:
            raise self._broken(event, "a mapping or sequence is used as a key")
        node = (Map if mapping else Seq)(self.path, pack(mark.line, mark.column))
        tag = event.tag
        if tag is not None and not tag.startswith(_TAG):
            node.tag = tag
        self._add(event, node, 1)
        self.levels.append(_Level(node, event.anchor, self.nodes + self.aliased))

    def _close(self) -> None:
        level = self.levels.pop()
        if level.merges:
            self._merge(level)
        if level.anchor is not None:
            size = self.nodes + self.aliased - level.before + 1
            self.anchors[level.anchor] = (level.node, size, level.node.tag)

    def _alias(self, event: Any) -> None:
        known = self.anchors.get(event.anchor)
        if known is None:
            open_ = any(level.anchor == event.anchor for level in self.levels)
            why = "stands for a part of which it is a part itself" if open_ else "has no anchor before it"
            raise self._broken(event, f"the alias *{event.anchor} {why}")
        node, size, _ = known
        self._expand(size, event.start_mark.line, event.start_mark.column)
        self._add(event, node, 0)

    def _expand(self, size: int, line: int, column: int) -> None:
        self.aliased += size
        if self.aliased > MOST_ALIASED:
            text = f"its aliases stand for more than {MOST_ALIASED} values"
            raise Broken(Where(self.path, line + 1, column + 1), text)

    def _add(self, event: Any, value: Any, size: int) -> None:
        self.nodes += size
        if self.nodes > MOST_NODES:
            raise self._broken(event, f"more than {MOST_NODES} values")
        if event.__class__ is yaml.ScalarEvent and event.anchor is not None:
            self.anchors[event.anchor] = (value, 1, event.tag or "")
        if not self.levels:
            self.roots.append(value)
            return
        level = self.levels[-1]
        mark = event.start_mark
        node = level.node
        if node.__class__ is Seq:
            node.places.append(pack(mark.line, mark.column))
            node.append(value)
        elif level.key is None:
            self._key(level, event, value)
        else:
            self._value(level, event, value)

    def _key(self, level: _Level, event: Any, value: Any) -> None:
        if isinstance(value, Map | Seq):
            raise self._broken(event, "a mapping or sequence is used as a key")
        key = event.value if event.__class__ is yaml.ScalarEvent else str(value)
        level.key = key
        level.place = pack(event.start_mark.line, event.start_mark.column)
        if key in level.node.places and not _merges(event):
            first = unpack(self.path, level.node.places[key])
            raise self._broken(event, f"the key {key[:60]!r} is there twice, first in line {first.line}")
        if _merges(event):
            level.key = "<<merge>>"

    def _value(self, level: _Level, event: Any, value: Any) -> None:
        key, node = level.key or "", level.node
        level.key = None
        if key == "<<merge>>":
            level.merges.append((value, level.place))
            return
        node[key] = value
        node.places[key] = level.place
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!" and not tag.startswith(_TAG):
            node.tags[key] = tag

    def _merge(self, level: _Level) -> None:
        """Put the entries of `<<` in: explicit keys win, then the first of several (yaml.org/type/merge.html)."""
        node = level.node
        for value, place in level.merges:
            for source in value if isinstance(value, Seq) else (value,):
                if not isinstance(source, Map):
                    raise Broken(unpack(self.path, place), "<< merges mappings only")
                self._expand(len(source), place >> 32, place & 0xFFFFFFFF)
                for key, each in source.items():
                    if key not in node:
                        node[key] = each
                        node.places[key] = source.places.get(key, source.place)
                        if key in source.tags:
                            node.tags[key] = source.tags[key]

    def _broken(self, event: Any, text: str) -> Broken:
        return Broken(Where(self.path, event.start_mark.line + 1, event.start_mark.column + 1), text)


def _merges(event: Any) -> bool:
    return event.__class__ is yaml.ScalarEvent and event.value == "<<" and event.implicit[0] and event.tag is None


def _problem(error: yaml.MarkedYAMLError) -> str:
    context = f" {error.context}" if error.context else ""
    return f"not YAML: {error.problem}{context}"
