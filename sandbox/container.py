"""Request → container that runs: everything decided once in `prepare`, everything opened and made in `start`.

The command line and the Python API both go through here. `start` undoes what it made when a step fails.
"""

from __future__ import annotations

import os

from stockade.errors import StockadeError
from stockade.sandbox import filters, launch, modes
from stockade.sandbox.build import build
from stockade.sandbox.host import probe, survey
from stockade.sandbox.inputs import close, give, inputs, placement
from stockade.sandbox.linux.record import Record
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan import Options, plan
from stockade.sandbox.plan_identity import process_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stockade.sandbox.cgroups import Cgroup
    from stockade.sandbox.host import Host
    from stockade.sandbox.relay import Wiring
    from stockade.sandbox.request import Request


class Prepared(Record):
    """A request with all decisions made: the Spec, the filter's program, the host that they were made for."""

    request: Request
    spec: oci.Spec
    host: Host
    program: bytes
    filter_flags: int = 0

    @property
    def limited(self) -> bool:
        """Tell whether a control group is needed: for limits, for devices, or to find all processes again."""
        resources = self.spec.linux.resources
        return resources is not None or not self.contained

    @property
    def contained(self) -> bool:
        """Tell whether the end of the first process is the end of all, pid_namespaces(7)."""
        return self.spec.linux.namespace("pid") is not None

    @property
    def pipes_inside(self) -> bool:
        """Tell whether the container must make its own pipes: its user is another, to whom we may not give ours."""
        return self.user_outside != self.host.uid and not self.host.holds("CAP_CHOWN")

    @property
    def user_outside(self) -> int:
        """Give the program's uid as we see it."""
        return self.owner_outside[0]

    @property
    def owner_outside(self) -> tuple[int, int]:
        """Give the program's uid and gid as we see them."""
        user, linux = process_of(self.spec).user, self.spec.linux
        return _outside(user.uid, linux.uid_mappings), _outside(user.gid, linux.gid_mappings)


def _outside(inside: int, maps: Sequence[oci.LinuxIDMapping]) -> int:
    for mapping in maps:
        if mapping.container_id <= inside < mapping.container_id + mapping.size:
            return mapping.host_id + inside - mapping.container_id
    return inside


def prepare(request: Request) -> Prepared:
    """Make all decisions. Changes nothing. Raises StockadeError for what can't be had."""
    launch.hold_standard_streams()
    try:
        host = probe()
    except OSError as error:
        raise StockadeError(
            f"the machine can't be looked at: {error.filename}: {error.strerror}",
            hint="a procfs must be mounted on /proc: from there is read what this kernel can do, and what it has done",
        ) from error
    mode = modes.load(request.mode or modes.default_name(host.uid))
    host = survey(request, mode, host)
    spec = build(request, mode, host)
    program, flags = _filter(spec, host)
    return Prepared(request, spec, host, program, flags)


def _filter(spec: oci.Spec, host: Host) -> tuple[bytes, int]:
    """Give the filter's program, empty for none, and the flags for seccomp(2)."""
    profile = spec.annotations.get(oci.SECCOMP, "unconfined")
    if profile == "unconfined" or spec.process is None:
        return b"", 0
    capabilities = spec.process.capabilities.bounding if spec.process.capabilities else ()
    found = filters.program_for(profile, capabilities, host.arch)
    return found.program, found.flags


def options(prepared: Prepared, cgroup: Cgroup | None, own_stdio: int, *, dies_with_supervisor: bool = True) -> Options:
    """Give what the plan must know beside the Spec."""
    spec, host = prepared.spec, prepared.host
    v1: tuple[tuple[str, str], ...] = ()
    if any(mount.type == "cgroup" for mount in spec.mounts):
        from stockade.sandbox.linux import cgroups as cgroupfs

        # Only hierarchies with a group of the container's own: in the others its root would be our group.
        found = [group.hierarchy for group in cgroup.groups] if cgroup else cgroupfs.layout().hierarchies
        v1 = tuple((os.path.basename(h.directory), ",".join(h.controllers)) for h in found if h.version == 1)
    return Options(
        **placement(cgroup),
        filter_program=prepared.program,
        filter_flags=prepared.filter_flags,
        privileged=host.privileged,
        external_maps=_external(spec, host),
        own_stdio=own_stdio,
        v1=v1,
        dies_with_supervisor=dies_with_supervisor,
        undumpable=host.holds("CAP_SYS_PTRACE"),
    )


def _external(spec: oci.Spec, host: Host) -> bool:
    """Tell: newuidmap is needed for more than one's own id, by a caller who may not write any map."""
    maps = spec.linux.uid_mappings + spec.linux.gid_mappings
    if not maps or host.may_map:
        return False
    return any(mapping.size > 1 or mapping.host_id not in {host.uid, host.gid} for mapping in maps) or len(maps) > 2


def make_cgroup(prepared: Prepared, identity: str) -> Cgroup | None:
    """Make the container's control groups, or give None where it needs none."""
    if not prepared.limited:
        return None
    from stockade.sandbox import cgroups

    spec = prepared.spec
    cgroup = cgroups.create(
        spec.linux.cgroups_path or f"stockade/{identity}",
        spec.linux.resources,
        best_effort=prepared.request.best_effort,
        need=() if prepared.contained else ("freezer",),
    )
    if not prepared.contained and cgroup.freezer is None and cgroup.directory is None:
        _refuse_uncontained(prepared, cgroup)
    return cgroup


def _refuse_uncontained(prepared: Prepared, cgroup: Cgroup) -> None:
    """Without PID namespace and control group nothing finds a process again that has left its parent (daemon(3))."""
    reason = "no control group can be had in which the processes of a container with the host's PIDs could be found"
    if not prepared.request.best_effort:
        cgroup.remove()
        raise StockadeError(
            f"--pid host: the end of all processes can't be enforced: {reason}",
            hint="leave --pid host out, or start it as root or where cgroup2 is delegated (systemd-run --user --scope "
            "-p Delegate=yes), or pass --best-effort: then only the first process is sure to end",
        )
    cgroup.refused["pid host"] = reason


class Container:
    """A container that runs, with all that belongs to it outside."""

    def __init__(self, prepared: Prepared, child: launch.Child, cgroup: Cgroup | None) -> None:
        self.prepared, self.child, self.cgroup = prepared, child, cgroup

    def kill(self) -> None:
        """Kill every process of it. With a PID namespace the first one's end is everyone's."""
        launch.kill(self.child.pidfd)
        if self.cgroup is not None and not self.prepared.contained:
            self.cgroup.kill()

    def signal(self, number: int) -> None:
        """Send a signal to the first process."""
        launch.kill(self.child.pidfd, number)

    def close(self) -> None:
        """Close the descriptors; the process has been waited for."""
        os.close(self.child.pidfd)
        if self.child.terminal >= 0:
            os.close(self.child.terminal)


def start(
    prepared: Prepared,
    wiring: Wiring,
    cgroup: Cgroup | None,
    launcher: Callable[[], launch.Launcher],
    meanwhile: Callable[[], None] | None = None,
) -> Container:
    """Launch. The wiring's container ends are closed here; the control group is the caller's, also on failure.

    `meanwhile` is done while the new process sets up, before its program may start.
    """
    spec = prepared.spec
    if not wiring.inside:
        for number, descriptor in enumerate(wiring.given):
            if wiring.pipes >> number & 1:
                give(descriptor, prepared.owner_outside)
    the_plan = plan(spec, options(prepared, cgroup, wiring.pipes if wiring.inside else 0))
    given, opened = inputs(the_plan, wiring.given, cgroup)
    try:
        child = launch.launch(launcher(), launch.encode(the_plan), given, meanwhile)
    finally:
        close(opened)
        wiring.started()
    wiring.received(child.streams)
    return Container(prepared, child, cgroup)
