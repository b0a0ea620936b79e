"""`exec`: a process joins a container, and gets no more than the container's configuration or the caller says."""

from __future__ import annotations

import os

from stockade.errors import StockadeError, UsageError
from stockade.sandbox import inputs, launch
from stockade.sandbox.linux import procfs
from stockade.sandbox.oci import lean_json, read
from stockade.sandbox.plan import Options
from stockade.sandbox.plan_exec import plan_exec
from stockade.sandbox.runtime import caller, console, creating, fit, groups, logs, rootless, seccomp, state
from stockade.sandbox.verify import PROC_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stockade.sandbox.cgroup_handle import EngineCgroup
    from stockade.sandbox.oci import spec as oci
    from stockade.sandbox.plan import Plan
    from stockade.sandbox.runtime.arguments import Invocation
    from stockade.sandbox.runtime.caller import Caller
    from stockade.sandbox.runtime.state import Container

MAX_PROCESS = 1 << 24
#: the one above stands for "leave it as it is", setresuid(2)
LARGEST_ID = 0xFFFFFFFE


class Target:
    """The container as the new process finds it: first process, configuration, namespaces to join."""

    def __init__(self, container: Container, *, ignore_paused: bool) -> None:
        """Raise StockadeError for one that has stopped, or is paused."""
        status = container.status()
        if status not in {state.CREATED, state.RUNNING, state.PAUSED}:
            raise StockadeError("cannot exec in a stopped container", hint="create and start it again")
        if status == state.PAUSED and not ignore_paused:
            raise StockadeError(
                "cannot exec in a paused container (use --ignore-paused to override)",
                hint=f"resume it first: resume {container.identity}",
            )
        self.container = container
        self.pidfd = container.pidfd()
        if self.pidfd < 0:
            raise StockadeError("cannot exec in a stopped container", hint="create and start it again")
        config = container.config()
        linux = config.get("linux") or {}
        self.section: dict[str, Any] | None = linux.pop("seccomp", None)
        self.spec = read.snapshot(config, state.CONFIG)
        self.joined = _others(container.pid)

    def close(self) -> None:
        """Let go of the process."""
        os.close(self.pidfd)


def _others(pid: int) -> dict[str, str]:
    """Give OCI's types and the files of those namespaces of a process that are not our own."""
    found = {}
    for kind, name in PROC_NAMES.items():
        path = f"/proc/{pid}/ns/{name}"
        try:
            theirs = os.readlink(path)
        except FileNotFoundError:
            if os.path.lexists(f"/proc/self/ns/{name}"):  # it has ended since: a zombie has no namespaces
                raise StockadeError("cannot exec in a stopped container", hint="create and start it again") from None
            continue  # a kernel without this kind
        if theirs != os.readlink(f"/proc/self/ns/{name}"):
            found[kind] = path
    return found


def join(invocation: Invocation, container: Container) -> tuple[launch.Launcher, launch.Child]:
    """Start the process; give the launcher that guards it, and the process. Raises StockadeError."""
    asked = invocation.options
    creating.preserved(asked["preserve-fds"])
    target = Target(container, ignore_paused=asked["ignore-paused"])
    launcher = None
    try:
        who = caller.look()
        process = _process(invocation, target, who)
        console.check(asked["console-socket"], terminal=process.terminal, detached=asked["detach"])
        cgroup = _cgroup(invocation, container)
        launcher = launch.Launcher()
        options = _options(invocation, target, cgroup, who)
        spec = rootless.joined(target.spec.replace(process=process), container.pid)
        creating.own_streams(spec, who)
        the_plan = plan_exec(spec, options, target.joined)
        child = _launch(target, the_plan, options.preserve, cgroup, launcher)
        if asked["console-socket"]:
            console.send(asked["console-socket"], child.terminal)
        if path := asked["pid-file"]:
            state.put(os.path.abspath(path), str(child.pid).encode(), 0o644)
    except BaseException:
        if launcher is not None:
            launcher.close()
        raise
    finally:
        target.close()
    return launcher, child


def _options(invocation: Invocation, target: Target, cgroup: EngineCgroup, who: Caller) -> Options:
    program, flags = seccomp.filter_of(target.section, who.arch)
    return Options(
        **inputs.placement(cgroup),
        filter_program=program,
        filter_flags=flags,
        privileged=who.privileged,
        undumpable=who.holds("CAP_SYS_PTRACE"),
        dies_with_supervisor=False,
        oci=True,
        preserve=invocation.options["preserve-fds"],
        in_user_namespace=who.nested,
    )


def _launch(
    target: Target, the_plan: Plan, preserve: int, cgroup: EngineCgroup, launcher: launch.Launcher
) -> launch.Child:
    given, opened = inputs.inputs(the_plan, (0, 1, 2), cgroup, target.pidfd)
    try:
        pending = launch.begin(launcher, launch.encode(the_plan), given)
        pending.listener = lambda pidfd, number: _hand_over(target, pending.pid, pidfd, number)
        # The first of these is the socket of start in a plan of `create`: something must be there.
        child = pending.go(descriptors=(2, *range(3, 3 + preserve)) if preserve else ())
    finally:
        inputs.close(opened)
    pending.release()
    return child


def _hand_over(target: Target, pid: int, pidfd: int, number: int) -> None:
    from stockade.sandbox.runtime import listener

    told = creating.oci_state(target.container, state.RUNNING, target.container.pid)
    listener.hand_over(target.section or {}, told, pid, pidfd, number)


def _cgroup(invocation: Invocation, container: Container) -> EngineCgroup:
    cgroup = groups.reopen(container.data.get("cgroups") or ())
    below = invocation.options["cgroup"]
    cgroup = cgroup.below(below) if below else cgroup.beside(container.pid)
    cgroup.open_procs()
    return cgroup


def _process(invocation: Invocation, target: Target, who: Caller) -> oci.Process:
    """Give the process: from --process, or the container's own as changed by the options."""
    asked = invocation.options
    warnings: list[str] = []
    if path := asked["process"]:
        data = lean_json.loads(procfs.read_path(os.path.abspath(path), limit=MAX_PROCESS), path)
        process = read.read_process(data, path, warnings)
        if asked["tty"]:
            process = process.replace(terminal=True)
    else:
        process = _changed(invocation, target)
    own = target.spec.linux.namespace("user") is not None
    process = fit.fit_process(process, who, warnings, user_namespace=own)
    for warning in warnings:
        logs.warn(warning)
    return process


def _changed(invocation: Invocation, target: Target) -> oci.Process:
    asked, given = invocation.options, target.spec.process
    argv = invocation.arguments[1:]
    if given is None or not argv:
        raise UsageError("exec needs a program, or --process with a file", hint="exec ID PROGRAM [ARGUMENT...]")
    process = given.replace(
        args=argv, terminal=asked["tty"], console_size=None, env=_environment(given.env, asked["env"])
    )
    if asked["cwd"]:
        process = process.replace(cwd=asked["cwd"])
    user = process.user
    if asked["user"]:
        user = _user(asked["user"])
    if asked["additional-gids"]:
        if max(asked["additional-gids"]) > LARGEST_ID:
            raise UsageError(f"--additional-gids {max(asked['additional-gids'])}: expected numbers up to {LARGEST_ID}")
        user = user.replace(additional_gids=user.additional_gids + tuple(asked["additional-gids"]))
    if asked["no-new-privs"]:
        process = process.replace(no_new_privileges=True)
    if asked["apparmor"]:
        process = process.replace(apparmor_profile=asked["apparmor"])
    if asked["process-label"]:
        process = process.replace(selinux_label=asked["process-label"])
    return process.replace(user=user, capabilities=_capabilities(given, asked["cap"]))


def _environment(given: tuple[str, ...], asked: tuple[str, ...]) -> tuple[str, ...]:
    """Put the variables that were asked for in place of the container's own of the same names."""
    for variable in asked:
        if variable.find("=") < 1:
            raise UsageError(f"--env {variable!r}: expected NAME=VALUE")
    names = {variable.partition("=")[0] for variable in asked}
    return tuple([variable for variable in given if variable.partition("=")[0] not in names]) + asked


def _user(text: str) -> oci.User:
    from stockade.sandbox.oci import spec as oci

    uid, colon, gid = text.partition(":")
    ids = (_id(uid), _id(gid) if colon else 0)
    if min(ids) < 0:
        raise UsageError(
            f"--user {text[:64]!r}: expected UID[:GID] as numbers up to {LARGEST_ID}",
            hint="names are for engines to look up",
        )
    return oci.User(uid=ids[0], gid=ids[1])


def _id(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 11 else -1
    return number if number <= LARGEST_ID else -1


def _capabilities(process: oci.Process, more: tuple[str, ...]) -> oci.LinuxCapabilities | None:
    """Add capabilities to the sets as runc does: to the inheritable and ambient ones only where those are in use."""
    if not more:
        return process.capabilities
    from stockade.sandbox.linux import capabilities
    from stockade.sandbox.oci import spec as oci

    try:
        names = capabilities.names(capabilities.mask(more))
    except ValueError as error:
        raise UsageError(f"--cap: {error}") from None
    sets = process.capabilities or oci.LinuxCapabilities()

    def added(field: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*getattr(sets, field), *names)))

    changed = {field: added(field) for field in ("bounding", "effective", "permitted")}
    if sets.ambient:
        changed |= {field: added(field) for field in ("inheritable", "ambient")}
    return sets.replace(**changed)
