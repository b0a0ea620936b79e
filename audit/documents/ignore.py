"""The patterns of .gitignore files, as gitignore(5) has them."""

import os
import re
from dataclasses import dataclass

_LARGEST = 1 << 20
_MOST_STARS = 8


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line: what it matches, of names below the directory of its file, and what that means."""

    matches: re.Pattern[str]
    negated: bool
    directories_only: bool


@dataclass(frozen=True, slots=True)
class Ignore:
    """The patterns of one file and the directory, without a last slash, for which they hold."""

    directory: str
    patterns: tuple[Pattern, ...]

    def decides(self, path: str, directory: bool) -> bool | None:  # noqa: FBT001 - the one question it answers
        """Say whether a path in the directory is ignored; None where no line speaks of it. The last line decides."""
        below = path[len(self.directory) + 1 :] if self.directory else path
        for pattern in reversed(self.patterns):
            if (directory or not pattern.directories_only) and pattern.matches.match(below):
                return not pattern.negated
        return None


def ignored(path: str, directory: bool, files: tuple[Ignore, ...]) -> bool:  # noqa: FBT001 - as above
    """Say whether a path is ignored by files from the outermost directory to the innermost, which decides first."""
    for file in reversed(files):
        decision = file.decides(path, directory)
        if decision is not None:
            return decision
    return False


def read(path: str, directory: str) -> Ignore | None:
    """Read the file of patterns at `path`, which hold below `directory`; None where there is none that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        data = os.read(descriptor, _LARGEST)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return Ignore(directory, parse(data.decode("utf-8", "surrogateescape")))


def parse(content: str) -> tuple[Pattern, ...]:
    """Read the lines of a .gitignore."""
    patterns = []
    for line in content.splitlines():
        pattern = _pattern(line)
        if pattern:
            patterns.append(pattern)
    return tuple(patterns)


def _pattern(line: str) -> Pattern | None:
    line = re.sub(r"(?<!\\)[ \t]+$", "", line)  # trailing spaces don't count unless they are quoted
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    if negated:
        line = line[1:]
    directories_only = line.endswith("/")
    line = line.rstrip("/") if directories_only else line
    anchored = "/" in line
    expression = _expression(line.removeprefix("/"))
    if not line or expression is None:
        return None
    prefix = "" if anchored else "(?:.*/)?"
    return Pattern(re.compile(rf"{prefix}{expression}\Z", re.DOTALL), negated, directories_only)


def _expression(glob: str) -> str | None:
    """Translate a glob; None for one that git wouldn't match with anything, or that would take for ever."""
    if glob.count("*") > _MOST_STARS * 4:
        return None
    parts: list[str] = []
    index = 0
    while index < len(glob):
        rest = glob[index:]
        for begin, meaning in (("**/", "(?:.*/)?"), ("/**/", "/(?:.*/)?")):
            if rest.startswith(begin) and (index == 0 or begin[0] == "/"):
                parts.append(meaning)
                index += len(begin)
                break
        else:
            if rest == "/**":
                parts.append("/.+")
                break
            taken, meaning = _one(rest)
            if not taken:
                return None
            parts.append(meaning)
            index += taken
    return "".join(parts)


def _one(glob: str) -> tuple[int, str]:
    """Translate what a glob begins with: how many characters, and the expression. 0 for what can't match."""
    if glob[0] == "*":
        stars = len(glob) - len(glob.lstrip("*"))
        return stars, "[^/]*"
    if glob[0] == "?":
        return 1, "[^/]"
    if glob[0] == "\\":
        return (2, re.escape(glob[1])) if len(glob) > 1 else (0, "")
    if glob[0] == "[":
        found = re.match(r"\[([!^]?)(\]?(?:\\.|[^\]\\])*)\]", glob)
        if not found:
            return 1, r"\["
        inner = re.sub(r"([\[&~|])", r"\\\1", found[2])
        if inner.startswith("]"):
            inner = "\\" + inner
        text = f"(?!/)[{'^' if found[1] else ''}{inner}]"
        try:
            re.compile(text)
        except re.error:
            return 0, ""
        return found.end(), text
    return 1, re.escape(glob[0])
