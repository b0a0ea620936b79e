"""The systemd cgroup driver: a transient scope for each container, asked of systemd over D-Bus.

org.freedesktop.systemd1(5), "The Manager Object"; the properties are those that runc sets. systemd owns the group and
keeps to its own idea of it: whatever it knows a property for is set there as well as in the group's files, or the next
`systemctl daemon-reload` would take it back.
"""

from __future__ import annotations

import os

from stockade.errors import StockadeError
from stockade.sandbox import cgroup_engine
from stockade.sandbox.linux import cgroups
from stockade.sandbox.runtime import dbus, systemd_properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from stockade.sandbox.oci.spec import LinuxResources

    #: a property as systemd takes it: name, (signature, value)
    Property = tuple[str, tuple[str, Any]]

_NAME, _PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER = f"{_NAME}.Manager"
_MATCH = f"type='signal',sender='{_NAME}',interface='{_MANAGER}',member='JobRemoved'"
_TIMEOUT = 30.0  # seconds for a job, as runc


class Name:
    """What cgroupsPath says with this driver, SLICE:PREFIX:NAME; "" is a scope of ours in the default slice."""

    __slots__ = ("slice", "unit")

    def __init__(self, path: str, identity: str, *, user: bool) -> None:
        parts = path.split(":") if path else ["", "stockade", identity]
        if len(parts) != 3 or any("/" in part for part in parts[1:]):
            raise StockadeError(
                'expected linux.cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
                f"got {path!r} instead",
                hint="set the engine's cgroup driver and --systemd-cgroup alike",
            )
        self.slice = parts[0] or ("user.slice" if user else "system.slice")
        if not parts[2]:
            raise StockadeError(f"linux.cgroupsPath {path!r} has no name", hint="write it as slice:prefix:name")
        scope = f"{parts[1]}-{parts[2]}.scope" if parts[1] else f"{parts[2]}.scope"
        self.unit = parts[2] if parts[2].endswith(".slice") else scope


class Scope:
    """A unit that holds a container's groups. `user`: of the user's own systemd."""

    __slots__ = ("_holder", "name", "user")

    def __init__(self, name: str, *, user: bool, holder: tuple[int, int] = (0, -1)) -> None:
        self.name, self.user, self._holder = name, user, holder

    @property
    def record(self) -> str:
        """The text that stands for it in the state."""
        return f"{'user' if self.user else 'system'}:{self.name}"

    def started(self) -> None:
        """Let the placeholder go, now that a process of the container is in the scope."""
        pid, pipe = self._holder
        self._holder = (0, -1)
        if pid:
            os.close(pipe)
            os.waitpid(pid, 0)

    def stop(self) -> None:
        """Stop the unit, wait until it is gone, and forget its failure; one that is gone already is fine."""
        self.started()
        manager = _Manager(user=self.user)
        try:
            _stop(manager, self.name)
        except OSError as error:
            raise _failed("stopping", self.name, error) from error
        except dbus.RemoteError as error:
            if not error.name.endswith(".NoSuchUnit"):
                raise _failed("stopping", self.name, error) from error
        finally:
            manager.close()

    def update(self, resources: LinuxResources, version: int, *, current: tuple[int, int] = (0, 0)) -> None:
        """Change the unit's limits; `version` of cgroups, `current` memory limit and CPU period, 0 if unknown."""
        properties = systemd_properties.of_resources(resources, version, user=self.user, devices=False, current=current)
        if not properties:
            return
        manager = _Manager(user=self.user)
        try:
            manager.call("SetUnitProperties", "sba(sv)", self.name, True, properties)
        except (OSError, dbus.RemoteError) as error:
            raise _failed("changing", self.name, error) from error
        finally:
            manager.close()


class _Manager:
    """A connection to systemd. StockadeError where there is none."""

    def __init__(self, *, user: bool) -> None:
        self.peer = False
        self.bus = self._connect(dbus.session_addresses() if user else dbus.system_addresses(), user=user)

    def _connect(self, places: list[str], *, user: bool) -> dbus.Connection:
        private = f"{dbus.user_directory()}/systemd/private" if user else "/run/systemd/private"
        first: OSError | dbus.RemoteError | None = None
        for place in (*places, private):
            self.peer = place == private
            try:
                return dbus.Connection(place, timeout=_TIMEOUT, peer=self.peer)
            except (OSError, dbus.RemoteError) as error:
                first = first or error
        whose, remedy = (
            ("user's", "log in with a session of systemd (loginctl enable-linger), or set DBUS_SESSION_BUS_ADDRESS")
            if user
            else ("system's", "start dbus and systemd")
        )
        reason = (first.strerror if isinstance(first, OSError) else str(first)) or str(first)
        raise StockadeError(
            f"the systemd cgroup driver needs the {whose} D-Bus, and {places[0]!r} can't be reached: {reason}",
            hint=f"{remedy}, or use the cgroupfs driver (leave --systemd-cgroup out)",
        )

    def call(self, member: str, signature: str, *values: Any) -> tuple[Any, ...]:
        """Call a method of the manager."""
        return self.bus.call((_NAME, _PATH, _MANAGER, member), signature, *values)

    def subscribe(self) -> None:
        """Ask for the signals that tell of finished jobs, before the job is there."""
        if not self.peer:
            self.bus.call((*dbus.BUS, "AddMatch"), "s", _MATCH)
        self.call("Subscribe", "")

    def finish(self, job: str) -> str:
        """Wait for a job and give its result, "done" when all went well."""
        signal = self.bus.wait_for(lambda message: message.member == "JobRemoved" and job in message.body[1:2])
        return str(signal.body[3])

    def close(self) -> None:
        """Close the connection."""
        self.bus.close()


def start(
    name: Name,
    resources: LinuxResources | None,
    annotations: Mapping[str, str],
    *,
    description: str,
    user: bool,
) -> tuple[Scope, cgroup_engine.Place]:
    """Start a scope with the limits as its properties, and give it and where its group is.

    A scope needs a process to begin with and the container's is made later, in its group: until `Scope.started` a
    placeholder of ours is there, which ends with us whatever happens. StockadeError; nothing is left then.
    """
    manager = _Manager(user=user)
    memory = cgroups.layout().controller("memory")
    version = memory.version if memory else 2
    properties = systemd_properties.of_unit(name.unit, name.slice, description, version)
    properties += systemd_properties.of_resources(resources, version, user=user)
    properties += systemd_properties.of_annotations(annotations)
    scope = Scope(name.unit, user=user, holder=_placeholder())
    try:
        pid = scope._holder[0]  # noqa: SLF001 -- made here
        manager.subscribe()
        _start(manager, name.unit, [*properties, ("PIDs", ("au", [pid]))])
        return scope, _place(pid)
    except (OSError, dbus.RemoteError) as error:
        scope.started()
        raise _failed("starting", name.unit, error) from error
    except BaseException:
        scope.started()
        raise
    finally:
        manager.close()


def _placeholder() -> tuple[int, int]:
    """Fork a child that waits for the other end of its pipe to close, which it does when we end."""
    waiting, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(held)
            os.read(waiting, 1)
        finally:
            os._exit(0)
    os.close(waiting)
    return pid, held


def _start(manager: _Manager, unit: str, properties: Sequence[Property]) -> None:
    """Start the unit; one of the same name that failed before is forgotten first."""
    arguments: tuple[Any, ...] = ("ssa(sv)a(sa(sv))", unit, "replace", properties, [])
    try:
        (job,) = manager.call("StartTransientUnit", *arguments)
    except dbus.RemoteError as error:
        if not error.name.endswith(".UnitExists"):
            raise
        manager.call("ResetFailedUnit", "s", unit)
        (job,) = manager.call("StartTransientUnit", *arguments)
    result = manager.finish(job)
    if result != "done":
        manager.call("ResetFailedUnit", "s", unit)
        raise StockadeError(f"systemd can't start {unit}: the job's result is {result!r}", hint=f"journalctl -u {unit}")


def _stop(manager: _Manager, unit: str) -> None:
    manager.subscribe()
    (job,) = manager.call("StopUnit", "ss", unit, "replace")
    result = manager.finish(job)
    if result not in {"done", "skipped"}:
        raise StockadeError(f"systemd can't stop {unit}: the job's result is {result!r}", hint=f"journalctl -u {unit}")
    manager.call("ResetFailedUnit", "s", unit)


def _place(pid: int) -> cgroup_engine.Place:
    """Ask the kernel where systemd put the placeholder: cgroup2 alone, or its own hierarchy beside v1."""
    groups = cgroups.membership(pid)
    path = groups.get("name=systemd") or groups.get("", "")
    return cgroup_engine.Place(tuple(path.strip("/").split("/")), absolute=True, explicit=True, owned=True)


def _failed(what: str, unit: str, error: OSError | dbus.RemoteError) -> StockadeError:
    text = error.text if isinstance(error, dbus.RemoteError) else error.strerror or str(error)
    return StockadeError(f"systemd refuses {what} {unit}: {text}")
