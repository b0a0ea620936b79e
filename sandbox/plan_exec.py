"""A Spec and a container that runs → the plan of one more process in it: `exec`. Pure.

The process is made by the launcher, joins the namespaces of the container's first process through its pidfd, and is
then confined as that one is: ids, sets, filter and limits are those of its own `process`, the control groups are the
container's. Nothing of the host is mounted or looked up on the way.

From its first instruction it is seen in the container's PID namespace. Without a user namespace of the container's own,
who has CAP_SYS_PTRACE there may look into it whatever its dumpable flag says (ptrace(2), __ptrace_may_access), and what
it has as root, as working directory or as an open directory is a way to the host (CVE-2016-9962). So the launcher
enters all of the container's namespaces first, and the clone has no directory of the host. With a user namespace of the
container's own no capability in there counts against a process that the host's root made: it enters the others itself.
One that a user made, who may not look into what is not dumpable, is dumpable while it is compared with the Spec, and
root in that user's namespace is the same user: it is treated as the first kind, and is not dumpable before and after.
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

CGROUP2 = "cgroup2"
NEWPID = NAMESPACES["pid"]
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
    exposed = "pid" in joined and not ("user" in joined and options.privileged)
    unified = (CGROUP2,) if options.cgroup and exposed else ()
    procs = tuple(slots.input("procs", path) for path in (*options.procs, *unified))
    cgroup = slots.input("cgroup") if options.cgroup and not exposed else None
    target = slots.input("process")
    process = plan_identity.process_of(spec)
    # A caller without privilege over its own user namespace gets it over the container's by joining that one first.
    early = [kind for kind in joined if exposed or kind == "pid" or (kind == "user" and not options.privileged)]
    late = [kind for kind in joined if kind not in early]
    parent = list(_parent(spec, options, target, early, cgroup))
    place = next(number for number, step in enumerate(parent) if isinstance(step, s.Clone)) + 1
    affinities = [list(plan_process.affinity(process, final=final)) for final in (False, True)]
    parent[place:place] = [*affinities[0], *(s.Place(slot) for slot in procs), *affinities[1]]
    child: list[Step] = [s.WaitMaps(), s.Stdio(stdin, stdout, stderr), s.CloseOthers()]
    child += _joined(spec, options, target, late)
    if exposed:
        child += [s.Close(each.slot) for each in slots.inputs]
    child += _inside(spec, options, slots, user="user" in joined)
    child += last(spec, options, stdin, stdout, stderr)
    return Plan(
        tuple(parent),
        tuple(child),
        tuple(slots.inputs),
        plan_identity.expected(spec, (), options).replace(joined=tuple(joined.items())),
    )


def _parent(spec: oci.Spec, options: Options, target: Slot, early: list[str], cgroup: Slot | None) -> Iterator[Step]:
    """Give the launcher's steps but for the placement.

    Its own attributes are the clone's: what is set through /proc is set before that is the container's.
    """
    process = plan_identity.process_of(spec)
    outside = list(plan_process.outside(spec, process))
    first = [step for step in outside if not options.privileged or ("mount" in early and isinstance(step, s.OomScore))]
    yield from first
    if plan_process.labels_of(process) and "mount" in early and options.privileged:
        yield s.JoinFirst(target, NEWPID)
        yield s.PidsProc(plan_process.PROC)
        early = [kind for kind in early if kind != "pid"]
    if early:
        yield s.JoinFirst(target, _flags(early))
    yield s.Clone(0, "", cgroup.number if cgroup else s.NONE.number)
    yield from [step for step in outside if step not in first]


def _flags(kinds: list[str]) -> int:
    return sum(NAMESPACES[kind] for kind in kinds)


def _joined(spec: oci.Spec, options: Options, target: Slot, late: list[str]) -> Iterator[Step]:
    """Give the steps after which the process is in all of the container's namespaces."""
    yield s.Dumpable(0)
    labelled = plan_process.labels_of(plan_identity.process_of(spec))
    if late and labelled:
        yield s.HostProc(plan_process.PROC)
    if late:
        yield s.Join(target, _flags(late))
    elif labelled and not options.privileged:  # the container's own: no other can be had; what covers it is refused
        yield s.HostProc(plan_process.PROC)


def _inside(spec: oci.Spec, options: Options, slots: Slots, *, user: bool) -> Iterator[Step]:
    process = plan_identity.process_of(spec)
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
