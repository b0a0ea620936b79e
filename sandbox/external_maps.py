"""Id maps that newuidmap(1) and newgidmap(1) write, who may use the subordinate ids of a user."""

from __future__ import annotations

import os

from stockade.errors import StockadeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.plan import Plan


def write_maps(pid: int, plan: Plan) -> None:
    """Run newuidmap(1) and newgidmap(1). Raises StockadeError with what they said."""
    from stockade.sandbox.host import probe

    host = probe()
    expected = plan.expected
    for tool, name, mappings in (
        (host.newuidmap, "newuidmap", expected.uid_map),
        (host.newgidmap, "newgidmap", expected.gid_map),
    ):
        if not tool:
            raise StockadeError(
                f"{name} is not installed",
                hint="install the package uidmap; without subordinate ids --userns auto maps the caller alone",
            )
        argv = [name, str(pid)]
        for extent in mappings:
            argv += map(str, extent)
        code, said = run_tool(tool, argv)
        if code:
            raise StockadeError(
                f"write the {name[3:6]} map: {name} failed: {said or f'exit code {code}'}",
                hint="the ranges in /etc/subuid and /etc/subgid must be this user's; "
                "without any, --userns auto maps the caller alone",
            )


def run_tool(path: str, argv: list[str]) -> tuple[int, str]:
    """Run a program with an empty environment; give its exit code and the first line that it wrote to stderr."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 2),
    ]
    try:
        pid = os.posix_spawn(path, argv, {}, file_actions=actions)
    finally:
        os.close(writer)
    said = b""
    while chunk := os.read(reader, 4096):
        said = (said + chunk)[:4096]
    os.close(reader)
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:  # the program waits for all of its children; the maps are read back anyway
        status = 0
    return os.waitstatus_to_exitcode(status), said.decode(errors="replace").strip().split("\n")[0]
