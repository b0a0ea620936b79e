"""`stockade run` from the intent on disk to the exit code, and `gc`, which undoes what a killed supervisor left."""

from __future__ import annotations

import gc as collector
import os
import sys
import time

from stockade.errors import StockadeError
from stockade.sandbox import container, launch, relay, store, supervise
from stockade.sandbox.linux import process
from stockade.sandbox.plan import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.sandbox.cgroups import Cgroup
    from stockade.sandbox.container import Container, Prepared
    from stockade.sandbox.request import Request
    from stockade.sandbox.store import Entry, Found
    from stockade.sandbox.supervise import Ending, Signals
    from stockade.sandbox.terminal import Raw


def run(request: Request) -> int:
    """Run a container in the foreground and give the exit code for the shell. Raises StockadeError."""
    prepared = container.prepare(request)
    if request.show:
        sys.stdout.write(show(prepared))
        return 0
    raw = _raw() if request.tty and request.interactive else None
    identity = os.urandom(32).hex()
    entry = store.Entry(identity, request.name or "", intent(prepared, identity))
    cgroup = None
    with supervise.Signals() as signals:  # to the end: a second Ctrl-C must not leave half of the container behind
        try:
            cgroup = container.make_cgroup(prepared, identity)
            ending, report = _run(prepared, entry, cgroup, raw, signals)
        except BaseException:
            clean(entry, cgroup)
            raise
        clean(entry, cgroup, keep=not request.remove and _record_end(entry, ending))
    _say(prepared, ending, report)
    return ending.code


def _run(
    prepared: Prepared, entry: Entry, cgroup: Cgroup | None, raw: Raw | None, signals: Signals
) -> tuple[Ending, dict[str, object]]:
    request = prepared.request
    wiring = relay.Wiring()
    launcher = launch.Launcher()
    try:
        wiring.connect(
            uid=prepared.user_outside,
            stdin=request.interactive,
            terminal=request.tty,
            inside=prepared.pipes_inside,
        )
        running = container.start(prepared, wiring, cgroup, lambda: launcher, lambda: _be_supervisor(prepared))
        try:
            _record(entry, running)
            streams = wiring.streams + _terminal_streams(running, request)
            watch = supervise.Supervisor(running, streams, signals, launcher, request.timeout)
            if raw is None:
                ending = watch.wait()
            else:
                with raw:
                    ending = watch.wait()
        finally:
            running.kill()
        return ending, _report(prepared, running, ending, entry)
    finally:
        wiring.close()
        launcher.close()


def _be_supervisor(prepared: Prepared) -> None:
    from stockade.sandbox import supervisor

    # Orphans of a container without a PID namespace come to us, so that their end can be waited for.
    supervisor.prepare(subreaper=not prepared.contained, name="stockade")
    collector.enable()  # main() switched it off


def _raw() -> Raw:
    from stockade.sandbox import terminal

    return terminal.Raw()


def _terminal_streams(running: Container, request: Request) -> list[relay.Stream]:
    master = running.child.terminal
    if master < 0:
        return []
    from stockade.sandbox import terminal

    terminal.copy_size(master)
    os.set_blocking(master, False)
    streams = [relay.Stream(master, 1, close_source=False, close_target=False)]
    if request.interactive:
        streams.append(relay.Stream(0, master, close_source=False, close_target=False))
    return streams


def now() -> str:
    """Give the time as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def intent(prepared: Prepared, identity: str) -> dict[str, object]:
    """Give what `gc` must know before anything is made."""
    request = prepared.request
    state: dict[str, object] = {
        "ociVersion": store.OCI_VERSION,
        "id": identity,
        "status": "creating",
        "pid": 0,
        "bundle": request.rootfs or "",
        "annotations": dict(prepared.spec.annotations),
        "name": request.name or "",
        "labels": dict(request.labels),
        "args": list(request.argv[:1]),  # arguments may hold secrets
        "mode": request.mode or "",
        "created": now(),
        "supervisor": os.getpid(),
        "cgroups": list(_cgroup_candidates(identity)) if prepared.limited else [],
    }
    return state


def _cgroup_candidates(identity: str) -> Iterator[str]:
    """Give every directory where `cgroups.create` may put the groups: in our own group, or beside it."""
    from stockade.sandbox.linux import cgroups as cgroupfs

    own = cgroupfs.membership()
    for hierarchy in cgroupfs.layout().hierarchies:
        for path in own.values():
            for base in dict.fromkeys((path, os.path.dirname(path))):
                directory = hierarchy.path(f"{base.rstrip('/')}/stockade/{identity}")
                if directory:
                    yield directory


def _record(entry: Entry, running: Container) -> None:
    pid = running.child.pid
    changes: dict[str, object] = {"status": "running", "pid": pid}
    try:
        changes["startTime"] = process.start_time(pid)
    except (ProcessLookupError, FileNotFoundError):
        return  # it has ended already
    if running.cgroup is not None:
        changes["cgroups"] = list(running.cgroup.paths)
    entry.write(**changes)


def _record_end(entry: Entry, ending: Ending) -> bool:
    """Write how it ended; whether that could be done. On a full disk the program's exit code is worth more."""
    try:
        entry.write(status="stopped", pid=0, exitCode=ending.code, finished=now())
    except OSError:
        return False
    return True


def clean(entry: Entry, cgroup: Cgroup | None, *, keep: bool = False) -> None:
    """Remove the control groups and then the record, or with `keep` only let go of it.

    By what was recorded where that is not certain to be all: when an exception came while they were made, or comes
    now. The record stays for `gc` where a group can't be removed.
    """
    try:
        if cgroup is not None and cgroup.kill() and cgroup.remove():
            entry.release() if keep else entry.remove()
            return
    except BaseException:
        if cgroup is not None:
            cgroup.close()
        _clean_recorded(entry, keep=keep)
        raise
    _clean_recorded(entry, keep=keep)


def _clean_recorded(entry: Entry, *, keep: bool) -> None:
    recorded = entry.state.get("cgroups")
    gone = _groups_removed(recorded)
    entry.release() if keep or not gone else entry.remove()


def _groups_removed(recorded: object) -> bool:
    if not isinstance(recorded, list) or not recorded:
        return True
    from stockade.sandbox import cgroups

    return cgroups.remove_path([str(path) for path in recorded])


def show(prepared: Prepared) -> str:
    """Give what --spec and --plan print."""
    if prepared.request.show == "spec":
        import json

        from stockade.sandbox import filters
        from stockade.sandbox.oci.spec import SECCOMP, to_json

        spec = to_json(prepared.spec)
        profile = prepared.spec.annotations.get(SECCOMP, "unconfined")
        linux = spec.setdefault("linux", {})
        if profile != "unconfined" and isinstance(linux, dict):
            process_ = prepared.spec.process
            names = process_.capabilities.bounding if process_ and process_.capabilities else ()
            linux["seccomp"] = filters.resolve(profile, names, prepared.host.arch)
        return json.dumps(spec, indent=2) + "\n"
    return str(plan(prepared.spec, container.options(prepared, None, 0)))


def _report(prepared: Prepared, running: Container, ending: Ending, entry: Entry) -> dict[str, object]:
    if not prepared.request.json:
        return {}
    cgroup = running.cgroup
    used: dict[str, object] = {
        "wall_seconds": ending.wall,
        "cpu_seconds": ending.cpu,
        "peak_memory": ending.peak_memory,
    }
    used["peak_memory_from"] = "getrusage"
    if cgroup is not None:
        stats = cgroup.stats()
        if stats.memory_peak is not None:
            used |= {"peak_memory": stats.memory_peak, "peak_memory_from": "cgroup"}
        if stats.cpu_usec is not None:
            used["cpu_seconds"] = stats.cpu_usec / 1e6
        used |= {"oom_kills": stats.oom_kills, "pids_peak": stats.pids_peak}
    spec = prepared.spec
    sets = spec.process.capabilities if spec.process else None
    return {
        "id": entry.identity,
        "exit_code": ending.code,
        "ended_by": _ended_by(ending, used),
        "enforced": cgroup.enforced if cgroup else {},
        "not_enforced": cgroup.refused if cgroup else {},
        "notes": cgroup.notes if cgroup else {},
        "used": used,
        "verified": {
            "namespaces": [namespace.type for namespace in spec.linux.namespaces],
            "uid_map": [[m.container_id, m.host_id, m.size] for m in spec.linux.uid_mappings],
            "gid_map": [[m.container_id, m.host_id, m.size] for m in spec.linux.gid_mappings],
            "capabilities": {name: list(getattr(sets, name)) for name in sets._fields} if sets else {},
            "no_new_privs": bool(spec.process and spec.process.no_new_privileges),
            "seccomp_instructions": len(prepared.program) // 8,
        },
    }


def _ended_by(ending: Ending, used: dict[str, object]) -> str:
    if ending.why != "exit":
        return ending.why
    if used.get("oom_kills"):
        return "out-of-memory"
    return f"signal {ending.signal}" if ending.signal else "exit"


def _say(prepared: Prepared, ending: Ending, report: dict[str, object]) -> None:
    if ending.why == "timeout":
        sys.stderr.write(f"stockade: killed after {prepared.request.timeout:g} s (--timeout)\n")
    elif ending.why == "launcher":
        sys.stderr.write("stockade: the launcher died, so the container was killed\n")
    if report:
        sys.stderr.write(store.dumps(report) + "\n")


def gc(root: str | None = None) -> list[str]:
    """Remove what ended or killed supervisors left; give one line for each container removed. Raises StockadeError."""
    return [_collect(found) for found in store.entries(root or store.directory()) if not found.alive]


def _collect(found: Found) -> str:
    state = found.state
    pid = state.get("pid")
    if isinstance(pid, int) and pid > 1:
        _kill_same(pid, state.get("startTime"))
    if not _groups_removed(state.get("cgroups")):
        raise StockadeError(
            f"container {found.identity[:12]}: a control group can't be removed",
            hint="a process in it can't be killed at the moment (state D); try again later",
        )
    name = state.get("name")
    store.remove(found.root, found.identity, name if isinstance(name, str) else "")
    return f"{found.identity[:12]} {name or ''} {state.get('status', 'creating')}".replace("  ", " ")


def _kill_same(pid: int, start: object) -> None:
    """Kill a process if it still is the one that was recorded.

    The pidfd is taken first, so that it can't become another between look and signal.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if store.same_process(pid, start):
            launch.kill(pidfd)
    finally:
        os.close(pidfd)
