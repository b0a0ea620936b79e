"""Takes a Dockerfile apart as BuildKit does: logical lines, flags, JSON form, heredocs, each word with its place.

Source: moby/buildkit, frontend/dockerfile/parser (parser.go, line_parsers.go, directives.go).
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass

from stockade.audit.documents.load import Broken, decoded
from stockade.audit.facts import Where

INSTRUCTIONS = frozenset(
    {
        "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER",
        "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
    }
)  # fmt: skip
_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})
_JSON_FORM = frozenset({"ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME"})
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)$")
_NAME = re.compile(r"[A-Za-z]+")
_FLAG = re.compile(r"--([A-Za-z][\w.-]*)(?:=(.*))?$", re.DOTALL)
#: characters of one instruction after its lines were joined
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Text:
    """A logical line: what is left of its lines, and for offsets in it the line and column, from 1 on, of the file."""

    text: str
    offsets: tuple[int, ...]
    places: tuple[tuple[int, int], ...]

    def place(self, offset: int) -> tuple[int, int]:
        """Give the line and column of a character."""
        index = bisect_right(self.offsets, offset) - 1
        line, column = self.places[index]
        return line, column + offset - self.offsets[index]


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is written, quotes included, and where it begins in the file."""

    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A document within the file. `expand`: its delimiter is not quoted, so that variables are replaced in it."""

    name: str
    content: str
    expand: bool
    line: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name in capitals, flags as words, and the rest as text or, of JSON form, as `array`.

    `rest` is the logical line and `start` where in it the arguments begin. Of ONBUILD `inner` is what it holds.
    """

    name: str
    where: Where
    rest: Text
    start: int
    flags: tuple[Word, ...] = ()
    array: tuple[str, ...] | None = None
    heredocs: tuple[Heredoc, ...] = ()
    inner: "Instruction | None" = None

    @property
    def text(self) -> str:
        """The arguments as they are written, lines joined."""
        return self.rest.text[self.start :]


@dataclass(frozen=True, slots=True)
class File:
    """A Dockerfile: its instructions and the character that escapes, a backslash or a backtick."""

    instructions: tuple[Instruction, ...]
    escape: str


def parse(data: bytes, path: str) -> File:
    """Take a file apart. Raises Broken where BuildKit would refuse it."""
    return _Parser(decoded(data, path), path).parse()


class _Parser:
    def __init__(self, content: str, path: str) -> None:
        self.path = path
        self.lines = content.replace("\r\n", "\n").split("\n")
        self.number = 0
        self.escape = "\\"

    def parse(self) -> File:
        self._directives()
        found: list[Instruction] = []
        continued = re.compile(rf"(^|[^{re.escape(self.escape)}]){re.escape(self.escape)}[ \t]*$")
        while self.number < len(self.lines):
            line = self.lines[self.number].strip()
            if not line or line.startswith("#"):
                self.number += 1
                continue
            found.append(self._instruction(self._logical(continued), 0))
        return File(tuple(found), self.escape)

    def _directives(self) -> None:
        """Read the directives before anything else; an ordinary comment or a line that is none ends them."""
        for line in self.lines:
            match = _DIRECTIVE.match(line.strip())
            if not match or match[1].lower() not in {"escape", "syntax", "check"}:
                return
            if match[1].lower() == "escape":
                if match[2] not in {"\\", "`"}:
                    raise Broken(Where(self.path, 1, 1), f"escape={match[2][:20]}: only \\ and ` can escape")
                self.escape = match[2]

    def _logical(self, continued: re.Pattern[str]) -> Text:
        """Join a line with those that continue it. Comments and empty lines between them are left out."""
        parts: list[str] = []
        offsets: list[int] = []
        places: list[tuple[int, int]] = []
        length = 0
        while self.number < len(self.lines):
            line = self.lines[self.number]
            bare = line.strip()
            self.number += 1
            if parts and (not bare or bare.startswith("#")):
                continue
            indent = 0 if parts else len(line) - len(line.lstrip())
            match = continued.search(line)
            piece = line[indent : match.start() + len(match[1])] if match else line[indent:]
            offsets.append(length)
            places.append((self.number, indent + 1))
            parts.append(piece)
            length += len(piece)
            if length > _LONGEST:
                raise Broken(Where(self.path, self.number), f"an instruction of more than {_LONGEST} characters")
            if not match:
                break
        return Text("".join(parts).rstrip(), tuple(offsets), tuple(places))

    def _instruction(self, line: Text, start: int) -> Instruction:
        where = Where(self.path, *line.place(start))
        match = _NAME.match(line.text, start)
        name = match.group().upper() if match else ""
        end = match.end() if match else start
        if name not in INSTRUCTIONS or (end < len(line.text) and not line.text[end].isspace()):
            word = line.text[start:].split(None, 1)[0]
            raise Broken(where, f"no instruction of a Dockerfile: {word[:40]!r}")
        start = _blank(line.text, end)
        if name == "ONBUILD":
            inner = _NAME.match(line.text, start)
            if not inner or inner.group().upper() in {"ONBUILD", "FROM", "MAINTAINER"}:
                raise Broken(where, f"ONBUILD can't hold {line.text[start : start + 40]!r}")
            return Instruction(name, where, line, start, inner=self._instruction(line, start))
        flags, start = _flags(line, start, self.escape)
        array = _array(line.text[start:]) if name in _JSON_FORM else None
        if name == "HEALTHCHECK":
            rest = line.text[start:].split(None, 1)
            if len(rest) == 2 and rest[0].upper() == "CMD":
                array = _array(rest[1])
        heredocs = self._heredocs(line, start, where) if name in _HEREDOCS and array is None else ()
        return Instruction(name, where, line, start, flags, array, heredocs)

    def _heredocs(self, line: Text, start: int, where: Where) -> tuple[Heredoc, ...]:
        if "<<" not in line.text[start:]:
            return ()
        found = []
        for word in words(line, start, self.escape):
            match = _HEREDOC.match(word.text)
            if match:
                found.append(self._heredoc(match, where))
        return tuple(found)

    def _heredoc(self, match: re.Match[str], where: Where) -> Heredoc:
        name = re.sub(r"""["'\\]""", "", match[3])
        begin = self.number
        body: list[str] = []
        while self.number < len(self.lines):
            line = self.lines[self.number]
            self.number += 1
            line = line.lstrip("\t") if match[2] else line
            if line == name:
                return Heredoc(name, "\n".join(body) + "\n" if body else "", name == match[3], begin + 1)
            body.append(line)
        raise Broken(where, f"the heredoc {name[:40]} has no end")


def _blank(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _flags(line: Text, start: int, escape: str) -> tuple[tuple[Word, ...], int]:
    """Take the words that begin with two dashes from the beginning."""
    flags: list[Word] = []
    while line.text.startswith("--", start):
        end = _end(line.text, start, escape)
        word = line.text[start:end]
        if word == "--":
            return tuple(flags), _blank(line.text, end)
        flags.append(Word(word, *line.place(start)))
        start = _blank(line.text, end)
    return tuple(flags), start


def _end(text: str, start: int, escape: str) -> int:
    """Find the end of a word: white space that is neither quoted nor escaped."""
    quote = ""
    index = start
    while index < len(text):
        character = text[index]
        if character == escape and quote != "'":
            index += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character.isspace():
            break
        index += 1
    return min(index, len(text))


def words(line: Text, start: int, escape: str) -> tuple[Word, ...]:
    """Split a logical line at white space that isn't quoted; the words keep their quotes."""
    found = []
    start = _blank(line.text, start)
    while start < len(line.text):
        end = _end(line.text, start, escape)
        found.append(Word(line.text[start:end], *line.place(start)))
        start = _blank(line.text, end)
    return tuple(found)


def flag(word: str) -> tuple[str, str]:
    """Take `--name=value` apart; the value of a mere `--name` is empty."""
    match = _FLAG.match(word)
    return (match[1].lower(), match[2] or "") if match else (word.lstrip("-"), "")


def _array(text: str) -> tuple[str, ...] | None:
    """Read the JSON form; what isn't a list of strings is in shell form, as BuildKit has it."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return tuple(found)
    return None
