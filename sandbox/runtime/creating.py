"""`create`: a bundle becomes a process that stands ready for `start`, and everything that it needs is made on the way.

What fails undoes what was made. Nothing of ours lives on after it but the process itself, which is the launcher's
program with everything set up, waiting on a socket in the container's directory.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import time

from stockade.errors import StockadeError, UsageError
from stockade.sandbox import cgroup_view, inputs, launch
from stockade.sandbox.linux.record import Record
from stockade.sandbox.oci import lean_json, read
from stockade.sandbox.plan import Options, last, plan
from stockade.sandbox.plan_identity import process_of
from stockade.sandbox.runtime import caller, console, fit, logs, rootless, state
from stockade.sandbox.steps_base import NONE
from stockade.sandbox.steps_process import Ready, WaitStart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stockade.sandbox.cgroup_handle import EngineCgroup
    from stockade.sandbox.oci import spec as oci
    from stockade.sandbox.plan import Plan
    from stockade.sandbox.runtime.arguments import Invocation
    from stockade.sandbox.runtime.caller import Caller
    from stockade.sandbox.runtime.state import Container
    from stockade.sandbox.steps import Step

MAX_CONFIG = 1 << 24
MAX_PRESERVED = 36  # native/plan.h: SLOTS, after FIRST_LATE_SLOT


class Bundle(Record):
    """A configuration as read: its bytes, the Spec with absolute paths, its seccomp section as it stands."""

    path: str
    data: bytes
    spec: oci.Spec
    seccomp: Any


class Made(Record):
    """What `create` has made, for `run` to go on with. `launcher` still guards the process."""

    container: Container
    child: launch.Child
    launcher: launch.Launcher
    cgroup: EngineCgroup | None


def bundle(invocation: Invocation) -> Bundle:
    """Read and check the bundle's configuration. Raises UsageError with the JSON path of what is wrong."""
    path = os.path.abspath(invocation.options["bundle"])
    name = os.path.join(path, invocation.options.get("config") or "config.json")
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise StockadeError(
            f"JSON specification file {name} not found", hint="make one with `spec`, or name the bundle with --bundle"
        ) from None
    try:
        data = _whole(descriptor)
    except OSError as error:  # a directory, a pipe that somebody keeps open
        raise StockadeError(f"{name} can't be read: {error.strerror}", hint="it must be a regular file") from error
    finally:
        os.close(descriptor)
    found = lean_json.loads(data, name)
    linux = found.get("linux") if isinstance(found, dict) else None
    seccomp = linux.pop("seccomp", None) if isinstance(linux, dict) else None
    warnings: list[str] = []
    spec = read.bundle(found, name, warnings)
    for warning in warnings:
        logs.warn(f"{name}: {warning}")
    return Bundle(path, data, _absolute(spec, path), seccomp)


def _whole(descriptor: int) -> bytes:
    data = piece = os.read(descriptor, 1 << 20)
    while piece and len(data) <= MAX_CONFIG:
        piece = os.read(descriptor, 1 << 20)
        data += piece
    return data


def _absolute(spec: oci.Spec, path: str) -> oci.Spec:
    """Make the paths of the host absolute that count from the bundle."""
    if spec.root is not None and not spec.root.path.startswith("/"):
        spec = spec.replace(root=spec.root.replace(path=os.path.join(path, spec.root.path)))
    if any(_relative(mount) for mount in spec.mounts):
        mounts = [m.replace(source=os.path.join(path, m.source)) if _relative(m) else m for m in spec.mounts]
        spec = spec.replace(mounts=tuple(mounts))
    return spec


def _relative(mount: oci.Mount) -> bool:
    bound = mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options
    return bound and bool(mount.source) and not mount.source.startswith("/")


def create(invocation: Invocation, *, detached: bool = True) -> Made:
    """Do what `create` has to. The container's lock is held until the caller closes it. Raises StockadeError."""
    read_from = bundle(invocation)
    spec = read_from.spec
    console.check(invocation.options["console-socket"], terminal=process_of(spec).terminal, detached=detached)
    who = caller.look()
    fitted, warnings = fit.fit(rootless.settle(spec, who), who)
    for warning in warnings:
        logs.warn(warning)
    identity = invocation.arguments[0]
    launcher = launch.Launcher()  # now, so that it stands ready when it is needed
    try:
        container = state.make(invocation.root, identity, _intent(identity, read_from), read_from.data)
    except BaseException:
        launcher.close()
        raise
    maker = Maker(invocation, read_from.replace(spec=fitted), container, who, launcher)
    try:
        return maker.make(detached=detached)
    except BaseException:
        maker.undo()
        raise


def _intent(identity: str, read_from: Bundle) -> dict[str, object]:
    spec = read_from.spec
    seconds = time.time()
    fraction = f"{int(seconds % 1 * 1e9):09d}"
    return {
        "ociVersion": state.OCI_VERSION,
        "id": identity,
        "pid": 0,
        "start": 0,
        "bundle": read_from.path,
        "rootfs": spec.root.path if spec.root else "",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds)) + fraction + "Z",
        "annotations": dict(spec.annotations),
        "cgroups": [],
    }


#: stands for a filter that is not read yet; no program has one byte
COMING = b"?"


def _standing(the_plan: Plan) -> Plan:
    """Give the plan up to where the process stands ready; its last steps come with the word to go on."""
    ready = next(number for number, step in enumerate(the_plan.child) if isinstance(step, Ready))
    return the_plan.replace(child=the_plan.child[: ready + 1])


class Maker:
    """The work of one `create`, and how it is undone."""

    def __init__(
        self,
        invocation: Invocation,
        read_from: Bundle,
        container: Container,
        who: Caller,
        launcher: launch.Launcher,
    ) -> None:
        self.invocation, self.bundle, self.container, self.who = invocation, read_from, container, who
        self.launcher = launcher
        self.spec = read_from.spec
        self.cgroup: EngineCgroup | None = None
        self.hooked = False
        # memfds with the state for hooks in the container, filled once its pid is known
        self.creating: list[int] = []
        self.starting: list[int] = []

    def make(self, *, detached: bool) -> Made:
        """Make control groups, launch, hand the terminal over, and write down what there is."""
        preserved(self.invocation.options["preserve-fds"])
        self.cgroup = self._cgroup()
        options = self._options(detached=detached)
        the_plan = _standing(plan(self.spec, options))
        own_streams(self.spec, self.who)
        given, opened = inputs.inputs(the_plan, (0, 1, 2), self.cgroup)
        pairs = zip(the_plan.inputs, given, strict=True)
        self.creating = [descriptor for wanted, descriptor in pairs if wanted.kind == "state"]
        if self.spec.hooks is not None and self.spec.hooks.start_container:
            self.starting.append(inputs.memory_file("state"))
            opened += self.starting
        listener = self._listen()
        try:
            late = [listener.fileno(), *range(3, 3 + options.preserve), *self.starting]
            child, steps = self._launch(the_plan, options, given, late)
        finally:
            inputs.close(opened)
            listener.close()
        if self.cgroup.unit is not None:
            self.cgroup.unit.started()
        self._record(child, steps)
        if detached and child.terminal >= 0:
            console.send(self.invocation.options["console-socket"], child.terminal)
        if path := self.invocation.options["pid-file"]:
            state.put(os.path.abspath(path), str(child.pid).encode(), 0o644)
        return Made(self.container, child, self.launcher, self.cgroup)

    def _launch(
        self, the_plan: Plan, options: Options, given: list[int], late: list[int]
    ) -> tuple[launch.Child, tuple[Step, ...]]:
        """Give the process and all of its steps. The filter is read while the process sets up."""
        pending = launch.begin(self.launcher, launch.encode(the_plan), given)
        pending.held = self._hooks
        try:
            program, flags = self._filter()
            options = options.replace(filter_program=program, filter_flags=flags)
            final = last(self.spec, options, NONE, NONE, NONE)
            tail = b"".join([step.encode() for step in final])
        except BaseException:
            pending.abandon()
            raise
        child = pending.go(final, tail, late, waits=True)
        pending.release()
        return child, the_plan.steps + final

    def _record(self, child: launch.Child, steps: tuple[Step, ...]) -> None:
        found = state.stat_of(child.pid)
        if found is None:
            raise StockadeError("the container's process was killed before it could wait for start")
        hooks = self.spec.hooks
        first = next(number for number, step in enumerate(steps) if isinstance(step, WaitStart))
        self.container.write(
            pid=child.pid,
            start=found[1],
            cgroups=self.cgroup.record if self.cgroup else [],
            hooks=[name for name in ("poststart", "poststop") if hooks and getattr(hooks, name)],
            last={
                "first": first,
                "steps": [str(step) for step in steps[first:-1]],
                "program": process_of(self.spec).args[0],
            },
        )

    def _cgroup(self) -> EngineCgroup:
        from stockade.sandbox.runtime import groups

        container = self.container
        # What a killed `create` leaves is found by what it meant to make.
        return groups.create(
            self.invocation, self.spec, container.identity, lambda record: container.write(cgroups=record)
        )

    def _options(self, *, detached: bool) -> Options:
        asked = self.invocation.options
        return Options(
            **inputs.placement(self.cgroup),
            **cgroup_view.view(self.spec, self.cgroup),
            filter_program=b"" if self.bundle.seccomp is None else COMING,
            privileged=self.who.privileged,
            external_maps=rootless.external(self.spec, self.who),
            undumpable=self.who.holds("CAP_SYS_PTRACE"),
            dies_with_supervisor=not detached,
            oci=True,
            start_later=True,
            hold=self.spec.hooks is not None,
            preserve=asked["preserve-fds"],
            new_keyring=not asked["no-new-keyring"],
            in_user_namespace=self.who.nested,
            no_pivot=asked["no-pivot"],
        )

    def _filter(self) -> tuple[bytes, int]:
        from stockade.sandbox.runtime import seccomp

        return seccomp.filter_of(self.bundle.seccomp, self.who.arch)

    def _listen(self) -> _socket.socket:
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            console.at(listener, f"{self.container.path}/{state.SOCKET}", connect=False)
            listener.listen(8)
        except BaseException:
            listener.close()
            raise
        return listener

    def _hooks(self, pid: int) -> None:
        """Run what belongs before the root changes, as the runtime."""
        hooks = self.spec.hooks
        if hooks is None:
            return
        from stockade.sandbox.runtime import hooks as running

        self.hooked = True
        told = oci_state(self.container, "creating", pid)
        running.run_hooks(hooks.prestart, told, "prestart")
        running.run_hooks(hooks.create_runtime, told, "createRuntime")
        for descriptor in self.creating:
            inputs.fill(descriptor, told)
        for descriptor in self.starting:
            inputs.fill(descriptor, oci_state(self.container, "created", pid))

    def undo(self) -> None:
        """Remove what was made; the process has been killed by whoever noticed the failure."""
        self.launcher.close()
        if self.cgroup is not None:
            self.cgroup.destroy()
        self.container.remove()
        if self.hooked and self.spec.hooks is not None and self.spec.hooks.poststop:
            from stockade.sandbox.runtime import hooks as running

            running.run_hooks(self.spec.hooks.poststop, oci_state(self.container, "stopped", 0), "poststop")


def oci_state(container: Container, status: str, pid: int) -> bytes:
    """Give the state as hooks and users read it, runtime-spec runtime.md "State"."""
    data = container.data
    told: dict[str, object] = {
        "ociVersion": data.get("ociVersion", state.OCI_VERSION),
        "id": container.identity,
        "status": status,
    }
    if pid:
        told["pid"] = pid
    told["bundle"] = data.get("bundle", "")
    if data.get("annotations"):
        told["annotations"] = data["annotations"]
    return lean_json.dumps(told).encode("utf-8", "surrogatepass")


def preserved(count: int) -> None:
    """Raise UsageError unless the descriptors that --preserve-fds counts are there."""
    if not 0 <= count <= MAX_PRESERVED:
        raise UsageError(f"--preserve-fds {count}: expected 0 to {MAX_PRESERVED}")
    for descriptor in range(3, 3 + count):
        try:
            # One that is closed on execve(2) did not come over ours: it is our own, and took a free number.
            there = not fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        except OSError:
            there = False
        if not there:
            raise UsageError(
                f"--preserve-fds {count}: descriptor {descriptor} is not open",
                hint="it counts the descriptors from 3 on that the program is to have",
            )


def own_streams(spec: oci.Spec, who: Caller) -> None:
    """Give pipes and terminals on our standard streams to the program's user, who could not open them by name else.

    As runc and crun do. Files and the null device stay as they are: they are the host's, and may be anyone's.
    """
    process = process_of(spec)
    if process.terminal or not who.holds("CAP_CHOWN"):
        return
    uid = _outside(process.user.uid, spec.linux.uid_mappings)
    for descriptor in (0, 1, 2):
        found = os.fstat(descriptor)
        if found.st_mode & 0o170000 == 0o010000 and found.st_uid != uid:
            try:
                os.fchown(descriptor, uid, -1)
            except PermissionError:
                pass  # in a user namespace that has not this id: it can write all the same
            except OSError as error:
                if error.errno != 22:  # EINVAL: an id that is not mapped here
                    raise


def _outside(inside: int, maps: tuple[oci.LinuxIDMapping, ...]) -> int:
    for mapping in maps:
        if mapping.container_id <= inside < mapping.container_id + mapping.size:
            return mapping.host_id + inside - mapping.container_id
    return inside
