"""`ps`: the processes of a container, as a list of ids for engines or as ps(1) shows them."""

from __future__ import annotations

import json
import os

from stockade.errors import StockadeError
from stockade.sandbox.runtime import state
from stockade.sandbox.runtime.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stockade.sandbox.runtime.arguments import Invocation
    from stockade.sandbox.runtime.state import Container

#: what ps(1) is asked for when the caller asks for nothing, as runc does
DEFAULT = ("-ef",)


def run(invocation: Invocation) -> int:
    """Print the ids, or a table of ps(1) with the lines that are the container's."""
    container = state.load(invocation.root, invocation.arguments[0])
    pids = processes(container)
    if invocation.options["format"] == "json":
        show(json.dumps(pids, separators=(",", ":")))
        return 0
    show(select(_ps(invocation.arguments[1:] or DEFAULT), frozenset(pids)))
    return 0


def processes(container: Container) -> list[int]:
    """Give the pids of a container's processes in order: what its control groups hold.

    Without one it is what its PID namespace holds, without namespaces below; in the host's it is the first process.
    """
    if container.data.get("cgroups"):
        cgroup = container.cgroup()
        try:
            return cgroup.pids()
        finally:
            cgroup.close()
    if not container.pid or not container.alive():
        return []
    namespace = _pid_namespace(str(container.pid))
    if namespace in ("", _pid_namespace("self")):
        return [container.pid]
    return sorted(int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and _pid_namespace(pid) == namespace)


def _pid_namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # it has ended, or is somebody else's
        return ""


def _ps(options: Sequence[str]) -> str:
    """Give what ps(1) prints; its own complaint is the error."""
    import subprocess

    try:
        done = subprocess.run(["ps", *options], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise StockadeError("ps is not installed", hint="add the package procps, or use --format json") from None
    if done.returncode:
        complaint = " ".join(done.stderr.decode(errors="replace").split()) or f"exit code {done.returncode}"
        raise StockadeError(f"ps {' '.join(options)}: {complaint}")
    return done.stdout.decode("utf-8", "surrogateescape")


def select(table: str, pids: Collection[int]) -> str:
    """Give the title of a table of ps(1) and the lines whose column PID is one of `pids`."""
    title, _, rest = table.partition("\n")
    columns = title.split()
    if "PID" not in columns:
        raise StockadeError("ps prints no column PID", hint="add pid to its options, for example -o pid,args")
    place, end = columns.index("PID"), title.index("PID") + 3
    kept = [line for line in rest.splitlines() if _pid(line, place, end) in pids]
    return "\n".join([title, *kept])


def _pid(line: str, place: int, end: int) -> int:
    """Give the number that ends where the title PID does, as ps sets numbers; if none does, the word of that place.

    Words alone would mislead after a column with spaces, places alone after one that was too narrow.
    """
    if not line[end : end + 1].strip() and line[:end].split():
        word = line[:end].rsplit(maxsplit=1)[-1]
        if word.isdecimal() and line[:end].endswith(word):
            return int(word)
    words = line.split()
    return int(words[place]) if len(words) > place and words[place].isdecimal() else -1
