"""Finds the files that an audit is asked for: files, directories (with .gitignore respected), standard input."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be audited. `data` is all of it, or of an archive only the beginning (then `whole` is False).

    `path` is the name in reports. What isn't `whole` is read from `file`, a path that can be opened.
    """

    path: str
    data: bytes
    file: str = ""
    whole: bool = True
