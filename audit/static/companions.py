"""The files that one audit was asked for, for collectors whose files speak of objects in others beside them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: of one directory so many files are offered; a set of manifests has tens
MOST = 200
_beside: dict[str, list[str]] = {}
_audit = 0


def remember(paths: Iterable[str]) -> None:
    """Take the files of an audit, in place of those of the one before, also for processes that are forked later."""
    global _audit  # noqa: PLW0603 - set once an audit, before its processes are forked
    _beside.clear()
    _audit += 1
    for path in paths:
        found = _beside.setdefault(os.path.dirname(path), [])
        if len(found) <= MOST:
            found.append(path)


def beside(path: str) -> tuple[int, tuple[str, ...]]:
    """Give the number of the audit, and its files of the same directory; none where there are too many."""
    found = _beside.get(os.path.dirname(path), [])
    return _audit, tuple(found) if path in found and len(found) <= MOST else ()
