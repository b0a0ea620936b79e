"""`events`: what a container uses, once or again and again, and that it ran out of memory, as lines of JSON.

Lines are those of runc: {"type": "stats", "id": ID, "data": …} and {"type": "oom", "id": ID}.
"""

from __future__ import annotations

import os
import select
import time

from stockade.errors import StockadeError, UsageError
from stockade.sandbox import cgroup_oom, cgroup_stats
from stockade.sandbox.oci import lean_json
from stockade.sandbox.runtime import state
from stockade.sandbox.runtime.output import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.cgroup_handle import EngineCgroup
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Print statistics once (--stats), or every --interval seconds until the container ends, and each OOM at once."""
    identity, interval = invocation.arguments[0], invocation.options["interval"]
    if interval <= 0:
        raise UsageError("duration interval must be greater than 0")
    container = state.load(invocation.root, identity)
    pidfd = container.pidfd()
    if pidfd < 0:
        raise StockadeError(f"container with id {identity} is not running")
    cgroup = container.cgroup()
    try:
        if invocation.options["stats"]:
            _show_stats(cgroup, identity)
        else:
            _follow(cgroup, identity, pidfd, interval)
    finally:
        cgroup.close()
        os.close(pidfd)
    return 0


def _show_stats(cgroup: EngineCgroup, identity: str) -> None:
    show(lean_json.dumps({"type": "stats", "id": identity, "data": cgroup_stats.read(cgroup)}))


def _follow(cgroup: EngineCgroup, identity: str, pidfd: int, interval: float) -> None:
    watch = cgroup_oom.watch(cgroup)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if watch:
        poll.register(watch.fd, watch.events)
    due = time.monotonic() + interval
    try:
        while True:
            ready = [fd for fd, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000)]
            if watch and ready:  # looked at once more at the end: the kernel may wake us late, or not at all
                for _ in range(watch.count()):
                    show(lean_json.dumps({"type": "oom", "id": identity}))
            if pidfd in ready:
                return
            if time.monotonic() >= due:
                _show_stats(cgroup, identity)
                due += interval
    finally:
        if watch:
            watch.close()
