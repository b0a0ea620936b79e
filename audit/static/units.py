"""Reads unit files as systemd does (systemd.syntax(7)): sections, entries that go on in the next line, words.

Quadlet's files have the same form. Each word knows the line and column that it begins at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockade.audit.documents.load import Broken, decoded
from stockade.audit.facts import Where
from stockade.audit.static.docker.request import Word

if TYPE_CHECKING:
    from collections.abc import Iterator

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
#: what the usual specifiers stand for: the home and runtime directories of root's manager or a user's
_SPECIFIERS = {"%h": "~", "%t": "/run", "%%": "%", "%S": "/var/lib", "%C": "/var/cache", "%L": "/var/log", "%E": "/etc"}


@dataclass(frozen=True, slots=True)
class Piece:
    """What one line adds to a value."""

    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Entry:
    """KEY=VALUE of a section. `where` is the key's place, `begins` that of the section's header."""

    section: str
    begins: Where
    key: str
    where: Where
    pieces: tuple[Piece, ...]

    @property
    def value(self) -> str:
        """The value in one line."""
        return " ".join(piece.text.strip() for piece in self.pieces if piece.text.strip())


def entries(data: bytes, path: str) -> Iterator[Entry]:
    """Give the entries of a unit. Raises Broken for what is no text, or no unit."""
    section, begins = "", Where(path, 1, 1)
    lines = decoded(data, path).split("\n")
    at = 0
    while at < len(lines):
        line = lines[at].rstrip("\r")
        bare = line.strip()
        number = at + 1
        at += 1
        if not bare or bare[0] in "#;":
            continue
        if bare[0] == "[" and bare[-1] == "]":
            section, begins = bare[1:-1], Where(path, number, line.index("[") + 1)
            continue
        key, equals, rest = line.partition("=")
        if not equals:
            raise Broken(Where(path, number, 1), "neither a section, nor KEY=VALUE, nor a comment")
        pieces = [Piece(rest, number, len(key) + 2)]
        while pieces[-1].text.endswith("\\"):
            pieces[-1] = Piece(pieces[-1].text[:-1], pieces[-1].line, pieces[-1].column)
            while at < len(lines) and lines[at].lstrip()[:1] in {"#", ";"}:
                at += 1  # comments between the parts of a value are left out
            if at == len(lines):
                break
            pieces.append(Piece(lines[at].rstrip("\r"), at + 1, 1))
            at += 1
        where = Where(path, number, len(key) - len(key.lstrip()) + 1)
        yield Entry(section, begins, key.strip(), where, tuple(pieces))


def words(entry: Entry) -> list[Word]:
    """Split a value into words, with quotes and backslashes taken as systemd takes them."""
    found: list[Word] = []
    text, start, quote = "", None, ""
    for piece in entry.pieces:
        at = 0
        while at < len(piece.text):
            letter = piece.text[at]
            place = Where(entry.where.path, piece.line, piece.column + at)
            if not quote and letter.isspace():
                if start is not None:
                    found.append(Word(specified(text), start))
                text, start = "", None
            elif quote and letter == quote:
                quote = ""
            elif not quote and letter in {"'", '"'}:
                quote, start = letter, start or place
            elif letter == "\\" and at + 1 < len(piece.text):
                at += 1
                text, start = text + _ESCAPES.get(piece.text[at], piece.text[at]), start or place
            else:
                text, start = text + letter, start or place
            at += 1
        if start is not None and not quote:
            found.append(Word(specified(text), start))
            text, start = "", None
    if start is not None:
        found.append(Word(specified(text), start))
    return found


def specified(text: str) -> str:
    """Put in what the specifiers stand for that matter to a path; others stay."""
    if "%" not in text:
        return text
    for name, value in _SPECIFIERS.items():
        text = text.replace(name, value)
    return text
