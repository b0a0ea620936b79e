"""A Spec and a container that runs → the plan of one more process in it: `exec`. Pure.

The process is made by the launcher, joins the namespaces of the container's first process through its pidfd, and is
then confined as that one is: ids, sets, filter and limits are those of its own `process`, the control groups are the
container's. Nothing of the host is mounted or looked up on the way.
"""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox import plan_identity, plan_mounts, plan_process
from stockade.sandbox import steps as s
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan import FIRST_LATE_SLOT, NAMESPACES, Plan, Slots, last

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.sandbox.plan import Options
    from stockade.sandbox.steps import Slot, Step

NEWUSER, NEWPID, NEWNS = NAMESPACES["user"], NAMESPACES["pid"], NAMESPACES["mount"]
O_PATH, O_DIRECTORY, O_NOFOLLOW = 0o10000000, 0o200000, 0o400000


def plan_exec(spec: oci.Spec, options: Options, joined: dict[str, str]) -> Plan:
    """Give the steps; `spec.process` is the program, `joined` maps OCI types to the files of the namespaces to join.

    The inputs have one of kind "process", the pidfd of the container's first process.
    """
    if "mount" not in joined:
        raise StockadeError(
            "exec needs a container with a mount namespace of its own", hint="run the program on the host instead"
        )
    slots = Slots()
    stdin, stdout, stderr = [slots.input(kind) for kind in ("stdin", "stdout", "stderr")]
    procs = tuple(slots.input("procs", path) for path in options.procs)
    cgroup = slots.input("cgroup") if options.cgroup else None
    target = slots.input("process")
    process = plan_identity.process_of(spec)
    # A caller without privilege over its own user namespace gets it over the container's by joining that one first.
    early = [kind for kind in joined if kind == "pid" or (kind == "user" and not options.privileged)]
    late = [kind for kind in joined if kind not in early]
    outside = list(plan_process.outside(spec, process))
    parent: list[Step] = [] if options.privileged else list(outside)
    if early:
        parent.append(s.JoinFirst(target, _flags(early)))
    parent.append(s.Clone(0, "", cgroup.number if cgroup else s.NONE.number))
    parent += plan_process.affinity(process, final=False)
    parent += [s.Place(slot) for slot in procs]
    parent += plan_process.affinity(process, final=True)
    parent += outside if options.privileged else []
    child: list[Step] = [s.WaitMaps(), s.Stdio(stdin, stdout, stderr), s.CloseOthers()]
    child += _inside(spec, options, slots, s.Join(target, _flags(late)), user="user" in joined)
    child += last(spec, options, stdin, stdout, stderr)
    return Plan(
        tuple(parent),
        tuple(child),
        tuple(slots.inputs),
        plan_identity.expected(spec, (), options).replace(joined=tuple(joined.items())),
    )


def _flags(kinds: list[str]) -> int:
    return sum(NAMESPACES[kind] for kind in kinds)


def _inside(spec: oci.Spec, options: Options, slots: Slots, join: Step, *, user: bool) -> Iterator[Step]:
    process = plan_identity.process_of(spec)
    if options.undumpable:
        yield s.Dumpable(0)
    if plan_process.labels_of(process):
        yield s.HostProc(plan_process.PROC)
    yield join
    if options.new_keyring:
        yield s.Keyring()
    yield s.Session()
    maps = spec.linux.uid_mappings
    if user and (not maps or plan_identity.maps_zero(spec)):
        yield s.SetIds(0, 0, spec.annotations.get(oci.SETGROUPS) != "deny", keep_capabilities=False, groups=())
    if process.terminal:
        yield from _terminal(process, slots.new("/dev"))
    yield from plan_identity.identity(spec, options)
    yield s.Umask(process.user.umask if process.user.umask is not None else 0o022)
    yield s.WorkingDirectory(process.cwd)
    yield s.Dumpable(0 if options.undumpable else 1)
    if options.dies_with_supervisor:
        yield s.DeathSignal(9)
    yield s.Ready(FIRST_LATE_SLOT)


def _terminal(process: oci.Process, dev: Slot) -> Iterator[Step]:
    size = process.console_size or oci.Box(0, 0)
    terminal = s.Slot(plan_mounts.TERMINAL_SLOT, "terminal")
    yield s.Open(dev, "/dev", O_PATH | O_DIRECTORY | O_NOFOLLOW)
    yield s.Terminal(dev, terminal, process.user.uid, size.height, size.width, 0)
