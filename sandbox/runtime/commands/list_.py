"""`list`: the containers below --root."""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox.runtime import logs, state
from stockade.sandbox.runtime.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stockade.sandbox.runtime.arguments import Invocation

#: the columns of the table: title and key, as runc has them
COLUMNS = (
    ("ID", "id"),
    ("PID", "pid"),
    ("STATUS", "status"),
    ("BUNDLE", "bundle"),
    ("CREATED", "created"),
    ("OWNER", "owner"),
)


def run(invocation: Invocation) -> int:
    """Print a table, a JSON array with what `state` tells of each, or with --quiet the names alone."""
    names = sorted(state.names(invocation.root))
    if invocation.options["quiet"]:
        if names:
            show("\n".join(names))
        return 0
    rows = [row for row in (_row(invocation.root, name) for name in names) if row]
    if invocation.options["format"] == "json":
        import json

        show(json.dumps(rows))
        return 0
    show(table([[title for title, _ in COLUMNS], *([str(row[key]) for _, key in COLUMNS] for row in rows)]))
    return 0


def _row(root: str, name: str) -> dict[str, Any]:
    """Give what is told of a container; nothing of one that went meanwhile or whose state can't be read."""
    try:
        container = state.load(root, name)
        status = container.status()
    except (StockadeError, OSError) as error:
        if name in state.names(root):
            logs.warn(f"container {name!r}: {error}")
        return {}
    told = container.data
    row = {
        "ociVersion": told.get("ociVersion", ""),
        "id": name,
        "pid": 0 if status == "stopped" else container.pid,
        "status": status,
        "bundle": told.get("bundle", ""),
        "rootfs": told.get("rootfs", ""),
        "created": told.get("created", ""),
        "owner": _owner(container.path),
    }
    return row | ({"annotations": told["annotations"]} if told.get("annotations") else {})


def _owner(path: str) -> str:
    """Give the user that the state belongs to, by name if it has one."""
    import os
    import pwd

    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def table(rows: list[list[str]]) -> str:
    """Align columns as runc's tables are: at least 12 wide, three spaces between, the last one open."""
    widths = [max(9, *(len(row[place]) for row in rows)) + 3 for place in range(len(rows[0]))]
    return "\n".join(
        "".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
