"""Data that the runtime and the auditor share: modes, seccomp profiles, policies.

The reader gives files as they are and modes as checked plain data (dict, list, str, int, bool), which marshal can
cache; what the values mean is decided where they are used.
"""

from __future__ import annotations

import os

HERE = os.path.dirname(os.path.abspath(__file__))

#: kind of profile → (directory, ending)
_KINDS = {
    "mode": ("modes", ".toml"),
    "seccomp": ("seccomp", ".json"),
    "policy": ("policies", ".toml"),
    "scoring": ("scoring", ".toml"),
}


def names(kind: str) -> tuple[str, ...]:
    """Give the names of the profiles that come with Stockade; `kind` is a key of _KINDS."""
    directory, ending = _KINDS[kind]
    return tuple(sorted(name[: -len(ending)] for name in os.listdir(f"{HERE}/{directory}") if name.endswith(ending)))


def path(kind: str, name: str) -> str:
    """Give the path of a profile: of our own by its name, else `name` itself, which then is a path."""
    directory, ending = _KINDS[kind]
    if "/" not in name and not name.endswith(ending):
        return f"{HERE}/{directory}/{name}{ending}"
    return name


def read(kind: str, name: str) -> bytes:
    """Give the content of a profile, by name or path. Raises OSError; a profile beyond 4 MiB is cut off there."""
    with open(path(kind, name), "rb") as file:
        return file.read(1 << 22)


def mode(name_or_path: str) -> dict[str, object]:
    """Read and check a mode: one of `names("mode")` or the path of a TOML file.

    Raises UsageError that names the file and the line for what is no mode, and OSError when it can't be read.
    """
    from stockade.profiles.schema import parse_mode

    return parse_mode(read("mode", name_or_path), path("mode", name_or_path))
