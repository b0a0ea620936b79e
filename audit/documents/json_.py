"""Reads JSON into trees that know their places; several values after one another are several documents.

YAML's reader takes most JSON too, but neither escaped surrogate pairs nor long keys, and what engines print has both.
"""

import re
from collections.abc import Callable
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined] # the stubs leave it out
from typing import Any

from stockade.audit.documents.tree import Map, Seq, pack

_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_WORDS = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}
_LONGEST_NUMBER = 400


class NotJson(Exception):
    """The text isn't JSON. `offset` is where, `text` why."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(text)
        self.offset = offset
        self.text = text


class Reader:
    """Reads a text without recursion. `refuse` is called with a place and a message, and raises.

    `deepest`, `most` and `documents` are the most levels, values and documents.
    """

    def __init__(
        self, text: str, path: str, refuse: Callable[[int, str], Exception], limits: tuple[int, int, int]
    ) -> None:
        self.text = text
        self.path = path
        self.refuse = refuse
        self.deepest, self.most, self.documents = limits
        self.offset = 0
        self.line = 0
        self.start = 0
        self.nodes = 0

    def read(self) -> tuple[Any, ...]:
        """Give the documents. Raises NotJson, and what `refuse` gives."""
        roots: list[Any] = []
        self._blank()
        while self.offset < len(self.text):
            if len(roots) == self.documents:
                raise self.refuse(self._place(), f"more than {self.documents} documents")
            roots.append(self._document())
            self._blank()
        return tuple(roots)

    def _place(self) -> int:
        return pack(self.line, self.offset - self.start)

    def _blank(self) -> None:
        match = _BLANK.match(self.text, self.offset)
        end = match.end() if match else self.offset
        newlines = self.text.count("\n", self.offset, end)
        if newlines:
            self.line += newlines
            self.start = self.text.rfind("\n", self.offset, end) + 1
        self.offset = end

    def _document(self) -> Any:
        levels: list[Map | Seq] = []
        value = self._value(levels)
        root = value
        if not levels:
            return value
        while levels:
            node = levels[-1]
            closing = "}" if isinstance(node, Map) else "]"
            self._blank()
            character = self.text[self.offset : self.offset + 1]
            if character == closing:
                self.offset += 1
                levels.pop()
                continue
            if node.places:
                if character != ",":
                    raise NotJson(self.offset, f"expected ',' or '{closing}'")
                self.offset += 1
                self._blank()
            if isinstance(node, Map):
                self._entry(node, levels)
            else:
                node.places.append(self._place())
                node.append(self._value(levels))
        return root

    def _entry(self, node: Map, levels: list[Map | Seq]) -> None:
        place = self._place()
        if self.text[self.offset : self.offset + 1] != '"':
            raise NotJson(self.offset, "expected a key in double quotes")
        key = self._string()
        if key in node.places:
            first = (node.places[key] >> 32) + 1
            raise self.refuse(place, f"the key {key[:60]!r} is there twice, first in line {first}")
        node.places[key] = place
        self._blank()
        if self.text[self.offset : self.offset + 1] != ":":
            raise NotJson(self.offset, "expected ':'")
        self.offset += 1
        self._blank()
        node[key] = self._value(levels)

    def _value(self, levels: list[Map | Seq]) -> Any:
        """Read a scalar, or open a mapping or sequence, which becomes the last of `levels`."""
        self.nodes += 1
        if self.nodes > self.most:
            raise self.refuse(self._place(), f"more than {self.most} values")
        character = self.text[self.offset : self.offset + 1]
        if character == '"':
            return self._string()
        if character in {"{", "["} and character:
            if len(levels) == self.deepest:
                raise self.refuse(self._place(), f"nested more than {self.deepest} levels deep")
            node = (Map if character == "{" else Seq)(self.path, self._place())
            self.offset += 1
            levels.append(node)
            return node
        word, value = _WORDS.get(character, ("", None))
        if word and self.text.startswith(word, self.offset):
            self.offset += len(word)
            return value
        return self._number()

    def _string(self) -> str:
        try:
            value, self.offset = scanstring(self.text, self.offset + 1, True)
        except JSONDecodeError as error:
            raise NotJson(error.pos, error.msg) from None
        return str(value)

    def _number(self) -> Any:
        match = _NUMBER.match(self.text, self.offset)
        if not match or match.end() - match.start() > _LONGEST_NUMBER:
            raise NotJson(self.offset, "expected a value")
        self.offset = match.end()
        return float(match.group()) if match[1] or match[2] else int(match.group())
