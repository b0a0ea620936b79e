"""Configuration files of the host's engines, with the line of each setting. Broken ones are told, never guessed."""

import os
import re
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stockade.audit.facts import Where
from stockade.errors import StockadeError

_LARGEST = 4 << 20
_SECTION = re.compile(r"\s*\[(\[?)\s*([^\[\]#]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_.-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")


class Unreadable(StockadeError):
    """A file is there and nothing can be read of it. `where` is the place."""

    def __init__(self, where: Where, text: str) -> None:
        super().__init__(f"{where}: {text}")
        self.where = where


def read(path: str) -> bytes | None:
    """Read a file of the host, None where there is none. Raises Unreadable for one that isn't plain, or too big.

    It is root's own configuration, which may be a link (/etc/containers in images, NixOS).
    """
    try:
        # O_NONBLOCK: a FIFO there must not hang the auditor
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(Where(path), error.strerror or str(error)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise Unreadable(Where(path), "no plain file of a reasonable size")
        return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Toml:
    """A TOML file: its content, and for each key the lines where it stands, in the order of the file."""

    path: str
    data: dict[str, Any]
    lines: dict[tuple[str, ...], list[int]] = field(default_factory=dict)

    def at(self, *keys: str, index: int = 0) -> Where:
        """Give the place of a key, of the nearest one around it where it isn't there; `index` in an array of tables."""
        while keys:
            found = self.lines.get(keys)
            if found:
                return Where(self.path, found[min(index, len(found) - 1)])
            keys = keys[:-1]
        return Where(self.path)

    def get(self, *keys: str) -> Any:
        """Give the value below keys, None where there is none."""
        value: Any = self.data
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def toml(path: str) -> Toml | None:
    """Read a TOML file, None where there is none. Raises Unreadable."""
    data = read(path)
    if data is None:
        return None
    try:
        text = data.decode()
        return Toml(path, tomllib.loads(text), _lines(text))
    except UnicodeDecodeError:
        raise Unreadable(Where(path), "not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line = re.search(r"at line (\d+)", str(error))
        raise Unreadable(Where(path, int(line[1]) if line else 0), f"not TOML: {error}") from None


def _lines(text: str) -> dict[tuple[str, ...], list[int]]:
    found: dict[tuple[str, ...], list[int]] = {}
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        header = _SECTION.match(line)
        if header:
            section = _parts(header[2])
            found.setdefault(section, []).append(number)
            continue
        key = _KEY.match(line)
        if key:
            found.setdefault((*section, *_parts(key[1])), []).append(number)
    return found


def _parts(text: str) -> tuple[str, ...]:
    return tuple([match[1] or match[2] or match[3] or "" for match in _PART.finditer(text)])


def words(value: Any) -> Iterator[str]:
    """Give a setting's values as text, in the file's words: of a table name=value each."""
    if isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, str | int | float):
        yield str(value)
    elif isinstance(value, list):
        for each in value:
            yield from words(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield f"{name}={','.join(words(each))}" if not isinstance(each, dict) else str(name)
