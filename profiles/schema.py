"""The shape of a mode file, checked strictly: a wrong or unknown key is refused with its line."""

from __future__ import annotations

import re
import tomllib

from stockade.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Check: TypeAlias = Callable[[object], object]
    Table: TypeAlias = Mapping[str, tuple[Check, bool]]

#: a mode file is a page or two; what is longer is a mistake
MAX_BYTES = 1 << 18

SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")
NAMESPACES = ("user", "mount", "pid", "network", "ipc", "uts", "cgroup", "time")

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _expect(what: str, value: object) -> ValueError:
    return ValueError(f"expected {what}, not {value!r}")


def _string(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _expect("a string", value)
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _expect("true or false", value)
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _expect("a whole number from 1 up", value)
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise _expect("a number above 0", value)
    return float(value)


def _size(value: object) -> int:
    found = re.fullmatch(r"([0-9]{1,15})([bkmgt]?)", value.lower()) if isinstance(value, str) else None
    if found:
        return int(found[1]) * _UNITS[found[2]]
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise _expect('a size such as "64m", "1g" or a number of bytes', value)


def _path(value: object) -> str:
    if not _string(value).startswith("/") or ".." in str(value).split("/"):
        raise _expect("an absolute path without ..", value)
    return str(value)


def _choice(*allowed: str) -> Check:
    def check(value: object) -> str:
        if value not in allowed:
            raise _expect(" or ".join(f'"{each}"' for each in allowed), value)
        return str(value)

    return check


def _list(item: Check) -> Check:
    def check(value: object) -> list[object]:
        if not isinstance(value, list):
            raise _expect("a list", value)
        return [item(each) for each in value]

    return check


def _or(word: str, check: Check) -> Check:
    def either(value: object) -> object:
        return word if value == word else check(value)

    return either


def _pattern(pattern: str, what: str) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise _expect(what, value)
        return value

    return check


_MAP = _list(_pattern(r"[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}", 'CONTAINER:HOST:SIZE as in "0:100000:65536"'))
_CAPABILITY = _pattern(r"CAP_[A-Z_]+", 'the name of a capability as in "CAP_CHOWN"')
_ULIMIT = _pattern(r"[a-z]+=(-1|[0-9]{1,19})(:(-1|[0-9]{1,19}))?", 'NAME=SOFT[:HARD] as in "nofile=1024:4096"')

#: section → key → (check, whether it must be there); "" is the top of the file
_SECTIONS: Mapping[str, Table] = {
    "": {
        "description": (_string, False),
        "seccomp": (_pattern(r".+", '"default", "unconfined" or a path'), True),
        "no_new_privileges": (_boolean, True),
        "masked_paths": (_list(_path), True),
        "readonly_paths": (_list(_path), True),
        "devices": (_or("all", _list(_path)), True),
    },
    "capabilities": {name: (_or("caller", _list(_CAPABILITY)), True) for name in SETS},
    # A container in the caller's own mount namespace would rearrange the host's mounts.
    "namespaces": {name: (_choice("private", "host"), True) for name in NAMESPACES}
    | {"mount": (_choice("private"), True)},
    "id_mapping": {
        "userns": (_choice("auto", "keep-id", "nomap"), True),
        "uidmap": (_MAP, False),
        "gidmap": (_MAP, False),
    },
    "sysctl": {},
    "limits": {
        "shm_size": (_size, False),
        "root_size": (_size, False),
        "memory": (_size, False),
        "memory_swap": (_size, False),
        "cpus": (_number, False),
        "cpu_shares": (_whole, False),
        "cpuset_cpus": (_pattern(r"[0-9,-]+", 'a list of processors as in "0-2,4"'), False),
        "pids": (_whole, False),
        "ulimits": (_list(_ULIMIT), False),
    },
}
_OPTIONAL = frozenset({"sysctl", "limits"})
_MOUNT: Table = {
    "destination": (_path, True),
    "type": (_choice("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup"), True),
    "source": (_string, True),
    "options": (_list(_pattern(r"[^,\s]+", "a mount option")), True),
}


def parse_mode(data: bytes, where: str) -> dict[str, object]:
    """Check the bytes of a mode file and give its content: sections as dicts, sizes in bytes.

    Optional keys that are not there stay absent. Raises UsageError whose message begins with `where` and the line.
    """
    if len(data) > MAX_BYTES:
        raise UsageError(f"{where}: {len(data)} bytes are no mode file; the limit is {MAX_BYTES}")
    try:
        text = data.decode()
        raw = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: not TOML: {error}") from None
    reader = _Reader(text, where)
    top = {key: value for key, value in raw.items() if key not in _SECTIONS and key != "mounts"}
    found = reader.table("", top, _SECTIONS[""])
    for section, table in _SECTIONS.items():
        if not section:
            continue
        if section not in raw and section not in _OPTIONAL:
            raise UsageError(f"{where}: section [{section}] is missing", hint=_STATE_ALL)
        found[section] = (reader.strings if section == "sysctl" else reader.table)(section, raw.get(section, {}), table)
    found["mounts"] = reader.mounts(raw.get("mounts"))
    return found


_STATE_ALL = "a mode states everything that it decides; start from a copy of one that comes with Stockade"


class _Reader:
    """Checks tables and knows the lines of their keys, which tomllib does not tell."""

    def __init__(self, text: str, where: str) -> None:
        self._lines = text.split("\n")
        self._where = where

    def table(self, section: str, value: object, table: Table, number: int = 0) -> dict[str, object]:
        """Check one table; `number` counts the tables of an array."""
        if not isinstance(value, dict):
            raise self._error(section, "", number, "expected a table")
        found: dict[str, object] = {}
        for key, item in value.items():
            if key not in table:
                known = ", ".join(sorted(table))
                raise self._error(section, key, number, f"unknown key {key!r}; known are {known}")
            try:
                found[key] = table[key][0](item)
            except ValueError as error:
                raise self._error(section, key, number, f"{key}: {error}") from None
        for key, (_, required) in table.items():
            if required and key not in value:
                raise self._error(section, "", number, f"{key} is missing")
        return found

    def strings(self, section: str, value: object, _: Table) -> dict[str, object]:
        """Check a table whose keys are free and whose values are strings."""
        if not isinstance(value, dict):
            raise self._error(section, "", 0, "expected a table")
        for key, item in value.items():
            if not isinstance(item, str):
                raise self._error(section, key, 0, f"{key}: expected a string in quotes, not {item!r}")
        return value

    def mounts(self, value: object) -> list[object]:
        """Check the array of mounts."""
        if not isinstance(value, list):
            raise UsageError(f"{self._where}: [[mounts]] are missing", hint=_STATE_ALL)
        return [self.table("mounts", item, _MOUNT, number) for number, item in enumerate(value)]

    def _error(self, section: str, key: str, number: int, message: str) -> UsageError:
        line = self._line(section, key, number)
        place = f"{self._where}:{line}" if line else self._where
        return UsageError(f"{place}: {f'[{section}] ' if section else ''}{message}", hint=_STATE_ALL)

    def _line(self, section: str, key: str, number: int) -> int:
        """Find the line of a key by the text, or of its section; 0 where the file is written too unusually."""
        current, seen, start = "", -1, 0
        for count, line in enumerate(self._lines, 1):
            header = re.match(r"\s*\[{1,2}\s*([A-Za-z_]+)\s*\]{1,2}\s*(#.*)?$", line)
            if header:
                if not section and header[1] == key:
                    return count
                current = header[1]
                seen += current == section
                if current == section and seen == number:
                    start = count
            elif current == section and (not section or seen == number):
                assigned = re.match(r"\s*[\"']?([^\"'=]+?)[\"']?\s*=", line)
                if key and assigned and assigned[1] == key:
                    return count
        return start
