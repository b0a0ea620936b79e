"""The end of a container: signals, and `delete`, after which nothing of it is left."""

from __future__ import annotations

import errno
import os
import select

from stockade.errors import StockadeError
from stockade.sandbox import launch
from stockade.sandbox.runtime import groups, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.state import Container

SIGKILL = 9
PATIENCE = 10.0  # seconds; a process that the kernel can't end in that time hangs in it


def signal(container: Container, number: int, *, everyone: bool) -> None:
    """Send a signal to the first process, or to every process of the container. Raises StockadeError."""
    if everyone:
        _signal_all(container, number)
        return
    pidfd = container.pidfd()
    if pidfd < 0:
        raise StockadeError("container not running", hint="it has stopped; remove it with `delete`")
    try:
        launch.kill(pidfd, number)
    finally:
        os.close(pidfd)


def _signal_all(container: Container, number: int) -> None:
    group = container.cgroup() if container.data.get("cgroups") else None
    if group is None or not group.groups:
        # Without control groups only a PID namespace ties the processes together, and its first one takes all along.
        if container.alive():
            signal(container, number, everyone=False)
        return
    group.signal(number)


def delete(container: Container, *, force: bool) -> None:
    """Remove a container that has stopped, or is still waiting for start; with `force` any. The lock is held.

    Raises StockadeError for one that runs.
    """
    status = container.status()
    if status in {state.RUNNING, state.PAUSED} and not force:
        raise StockadeError(
            f"cannot delete container {container.identity} that is not stopped: {status}",
            hint=f"kill it first, or: delete --force {container.identity}",
        )
    _kill(container)
    _remove_groups(container)
    hooks = None
    if "poststop" in (container.data.get("hooks") or ()):
        hooks = container.spec().hooks
    container.remove()
    if hooks is not None:
        from stockade.sandbox.runtime import hooks as running
        from stockade.sandbox.runtime.creating import oci_state

        running.run_hooks(hooks.poststop, oci_state(container, state.STOPPED, 0), "poststop")


def _kill(container: Container) -> None:
    """Kill the first process, if it is still there, and wait for its end."""
    pidfd = container.pidfd()
    if pidfd < 0:
        return
    try:
        launch.kill(pidfd, SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        group = container.cgroup() if container.status() == state.PAUSED else None
        if group is not None:
            group.thaw()  # a frozen process of cgroup v1 takes no signal
        if not poll.poll(PATIENCE * 1000):
            raise StockadeError(
                f"process {container.pid} doesn't end although it was killed",
                hint="it hangs in the kernel: see /proc/PID/stack and the kernel's log, then delete again",
            )
    finally:
        os.close(pidfd)


def _remove_groups(container: Container) -> None:
    paths = list(container.data.get("cgroups") or ())
    if not container.pid:  # a killed `create`: its launcher has killed what it had begun, or is about to
        groups.destroy(paths, timeout=1.0, kill=False)
    elif not groups.destroy(paths, timeout=PATIENCE):
        raise StockadeError(
            "the control groups can't be removed: " + os.strerror(errno.EBUSY).lower(),
            hint="a process of it doesn't end: see cgroup.procs in " + paths[0].partition(":")[2],
        )
