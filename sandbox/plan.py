"""Spec → Plan: a flat list of kernel steps in the order in which they must happen. Pure.

The order, and why: descriptors go before any path is looked at; ids are mapped before anything is made; the root file
system is complete before pivot_root; capabilities fall from the bounding set on, the filter is loaded last. `run
--plan` prints it.
"""

from __future__ import annotations

from _struct import Struct

from stockade.errors import StockadeError
from stockade.sandbox import plan_identity, plan_mounts, plan_process
from stockade.sandbox import steps as s
from stockade.sandbox.linux.record import Record
from stockade.sandbox.oci import spec as oci

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stockade.sandbox.plan_identity import Expected
    from stockade.sandbox.steps import Slot, Step

MAGIC = 0x4B435453
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SIGKILL = 9
#: SECCOMP_FILTER_FLAG_NEW_LISTENER and _WAIT_KILLABLE_RECV, seccomp(2)
LISTENER_FLAGS = 0x28
#: where the descriptors of last steps go; those of a plan are far fewer
FIRST_LATE_SLOT = 2008

#: joined by the launcher: what is made in the clone then belongs to them
JOINED_FIRST = ("user", "pid")
#: OCI's type → (flag of clone(2), word for readers)
NAMESPACES = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}


class Input(Record):
    """A descriptor that the supervisor gives with the plan: `kind` says which, `path` of what.

    Kinds: stdin, stdout, stderr; procs (cgroup.procs of hierarchy `path`), cgroup (directory of the cgroup2 group),
    freezer (directory of the v1 group that can freeze), tree (a detached copy of the mounts at `path`, open_tree(2)),
    mount (of the one mount), namespace (a namespace file), state (a memfd that the supervisor fills for hooks before it
    lets a held process go).
    """

    slot: Slot
    kind: str
    path: str = ""


class Plan(Record):
    """What the launcher does (`parent`) and what the new process does (`child`), with the descriptors they need.

    `external_maps`: newuidmap(1) and newgidmap(1) write the maps while the child waits. `expected` is what the
    supervisor must read back.
    """

    parent: tuple[Step, ...]
    child: tuple[Step, ...]
    inputs: tuple[Input, ...]
    expected: Expected
    external_maps: bool = False

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps; the launcher reports a failure by the index in this."""
        return self.parent + self.child

    def __str__(self) -> str:
        lines = [f"{number:3}  {step}\n     # {step.why}" for number, step in enumerate(self.steps, 1)]
        return "\n".join(lines) + "\n"

    def encode(self) -> tuple[bytes, bytes]:
        """Give the launcher's steps and the child's steps as bytes."""
        return b"".join([step.encode() for step in self.parent]), b"".join([step.encode() for step in self.child])


def header(parent: bytes, child: bytes, parent_steps: int, descriptors: int, *, in_memfd: bool) -> bytes:
    """Give the packet's header, native/plan.h `struct header`: both lists follow it, or are in a memfd."""
    return Struct("<6I").pack(MAGIC, in_memfd, descriptors, len(parent), parent_steps, len(parent) + len(child))


class Slots:
    """Hands out the launcher's slots; those of inputs come first, in the order in which they are sent."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.count = 0

    def new(self, name: str) -> Slot:
        """Give a free slot."""
        if self.count == plan_mounts.TERMINAL_SLOT:  # and those after it have their meaning
            raise StockadeError(
                f"more than {self.count} mounts and devices can't be set up", hint="mount a directory above them"
            )
        slot = s.Slot(self.count, name)
        self.count += 1
        return slot

    def input(self, kind: str, path: str = "") -> Slot:
        """Give the slot of a descriptor that comes with the plan. All inputs are asked for before `new`."""
        if self.count != len(self.inputs):
            raise AssertionError("inputs are sent before the first step, so their slots come first")
        slot = self.new(f"{kind} {path}".rstrip())
        self.inputs.append(Input(slot, kind, path))
        return slot


class Options(Record):
    """What the supervisor knows beside the Spec and must be in the plan.

    `filter_program` is the compiled filter, empty for none, loaded with `filter_flags`. `procs` are the hierarchies
    whose cgroup.procs it opened, `cgroup` whether there is a cgroup2 directory to be cloned into, `freezer` whether
    there is one of a v1 group that can freeze. `privileged` whether we may make mounts in our own namespace, so that
    sources are copied by us. `external_maps` whether newuidmap writes the maps. `own_stdio`: bits of the standard
    streams that are pipes of ours and must be handed to the program's uid from inside. `v1`: what a cgroup
    mount shows. `dies_with_supervisor`: not detached. `late_streams`: the program's own streams come with its last
    steps, see `last`. `undumpable`: the supervisor may look into the process all the same, so nobody else in a shared
    PID namespace shall.

    `oci`: the Spec is somebody else's and meant literally. `start_later`: the process waits for `start` on a socket
    that comes in slot FIRST_LATE_SLOT, followed by `preserve` descriptors for the program and the state for
    startContainer hooks. `hold`: hooks run before the root changes. `new_keyring` False keeps the caller's session
    keyring.

    `in_user_namespace`: root here is no root of the machine, so devices can't be made and cgroups of the host's not be
    mounted. `no_pivot`: the root is left by chroot. `v1_paths`: the container's own directory for each of `v1`.
    `cgroup2` is where the host has it.
    """

    filter_program: bytes = b""
    filter_flags: int = 0
    procs: tuple[str, ...] = ()
    cgroup: bool = False
    freezer: bool = False
    privileged: bool = False
    external_maps: bool = False
    own_stdio: int = 0
    v1: tuple[tuple[str, str], ...] = ()
    dies_with_supervisor: bool = True
    late_streams: bool = False
    undumpable: bool = False
    # what only a config.json of others asks for: the OCI runtime command
    oci: bool = False
    start_later: bool = False
    hold: bool = False
    preserve: int = 0
    new_keyring: bool = True
    in_user_namespace: bool = False
    no_pivot: bool = False
    v1_paths: tuple[str, ...] = ()
    cgroup2: str = "/sys/fs/cgroup"


def plan(spec: oci.Spec, options: Options) -> Plan:
    """Give the steps that turn a clone of the launcher into the program of `spec`.

    Raises StockadeError for what a Spec can say and this runtime can't do.
    """
    slots = Slots()
    stdin, stdout, stderr = [slots.input(kind) for kind in ("stdin", "stdout", "stderr")]
    procs = tuple(slots.input("procs", path) for path in options.procs)
    cgroup = slots.input("cgroup") if options.cgroup else None
    guarded = spec.linux.namespace("pid") is None  # else the end of process 1 is the end of all, pid_namespaces(7)
    freezer = slots.input("freezer") if options.freezer and guarded else None
    joined = {n.type: slots.input("namespace", n.path) for n in spec.linux.namespaces if n.path}
    trees = plan_mounts.tree_inputs(spec, slots, options)
    told = slots.input("state") if spec.hooks is not None and spec.hooks.create_container else None
    new = [n.type for n in spec.linux.namespaces if not n.path]
    parent = list(_parent(spec, new, procs, cgroup, options))
    if guarded and (options.dies_with_supervisor or not options.start_later):
        parent[1:1] = [s.Guard(group) for group in (cgroup, freezer) if group is not None]
    if spec.annotations.get(oci.ROOT_IDMAP) == "true" and plan_mounts.ROOT in trees:
        parent.append(s.Idmap(trees[plan_mounts.ROOT]))
    parent += plan_mounts.shifted(spec, trees)
    # Of the host's capabilities the launcher has none left once it has joined a user namespace.
    outside = list(plan_process.outside(spec, plan_identity.process_of(spec)))
    firsts = [s.JoinFirst(joined.pop(kind), NAMESPACES[kind]) for kind in JOINED_FIRST if kind in joined]
    parent = [*outside, *firsts, *parent] if _joins(spec, "user") else [*firsts, *parent, *outside]
    child: list[Step] = [s.WaitMaps(), s.Stdio(stdin, stdout, stderr), s.CloseOthers()]
    if options.undumpable:
        child.append(s.Dumpable(0))
    if options.external_maps:
        child.append(s.WaitSupervisor())
    if plan_process.needs_proc(spec, plan_identity.process_of(spec)):
        child.append(s.HostProc(plan_process.PROC))
    child += [s.Join(slot, NAMESPACES[kind]) for kind, slot in joined.items()]
    child += _before_root(spec, new, options)
    child += _root(spec, slots, trees, options, told)
    child += _after_root(spec, options)
    child += last(spec, options, stdin, stdout, stderr)
    return Plan(
        tuple(parent),
        tuple(child),
        tuple(slots.inputs),
        plan_identity.expected(spec, new, options),
        options.external_maps,
    )


def _root(spec: oci.Spec, slots: Slots, trees: dict[str, Slot], options: Options, told: Slot | None) -> list[Step]:
    steps = list(plan_mounts.root(spec, slots, trees, options))
    if options.hold:
        place = next(
            (n for n, step in enumerate(steps) if isinstance(step, (s.Pivot, s.MoveRoot, s.Chroot))), len(steps)
        )
        steps[place:place] = [
            s.Hold(),
            *(plan_process.container_hooks(spec, "createContainer", told) if told is not None else ()),
        ]
    return steps


def _parent(
    spec: oci.Spec, new: Sequence[str], procs: Sequence[Slot], cgroup: Slot | None, options: Options
) -> Iterator[Step]:
    late = {"cgroup", "time"} if plan_process.time_offsets(spec) else {"cgroup"}
    cloned = [kind for kind in new if kind not in late]
    yield s.Clone(
        sum(NAMESPACES[kind] for kind in cloned), " ".join(cloned), cgroup.number if cgroup else s.NONE.number
    )
    for slot in procs:
        yield s.Place(slot)
    if "user" in new and not options.external_maps:
        yield s.WriteMaps(
            plan_identity.map_text(spec.linux.uid_mappings),
            plan_identity.map_text(spec.linux.gid_mappings),
            spec.annotations.get(oci.SETGROUPS) == "deny",
        )


def _before_root(spec: oci.Spec, new: Sequence[str], options: Options) -> Iterator[Step]:
    if "cgroup" in new:
        yield s.Unshare(NAMESPACES["cgroup"], "the cgroup namespace")
    yield from plan_process.enter_time(spec)
    # As root of the host still: a user has a quota of 200 keys, and launches in sequence would meet it (keyrings(7)).
    if options.new_keyring:
        yield s.Keyring()
    yield s.Session()
    if ("user" in new and plan_identity.maps_zero(spec)) or _joins(spec, "user"):
        yield s.SetIds(0, 0, spec.annotations.get(oci.SETGROUPS) != "deny", keep_capabilities=False, groups=())
    if "network" in new:
        yield s.Loopback()
    yield from plan_process.sysctls(spec, plan_identity.process_of(spec))
    if options.own_stdio and not plan_identity.process_of(spec).terminal:
        yield s.OwnStdio(plan_identity.process_of(spec).user.uid, options.own_stdio)


def _joins(spec: oci.Spec, kind: str) -> bool:
    namespace = spec.linux.namespace(kind)
    return namespace is not None and bool(namespace.path)


def _after_root(spec: oci.Spec, options: Options) -> Iterator[Step]:
    process = plan_identity.process_of(spec)
    if spec.hostname:
        yield s.Hostname(spec.hostname)
    if spec.domainname:
        yield s.Domainname(spec.domainname)
    yield from plan_identity.identity(spec, options)
    yield s.Umask(process.user.umask if process.user.umask is not None else 0o022)
    yield s.WorkingDirectory(process.cwd)
    yield s.Dumpable(0 if options.undumpable else 1)
    if options.dies_with_supervisor:
        yield s.DeathSignal(SIGKILL)
    yield s.Ready(FIRST_LATE_SLOT)


def last(spec: oci.Spec, options: Options, stdin: Slot, stdout: Slot, stderr: Slot) -> tuple[Step, ...]:
    """Give the steps after Ready: the terminal or late streams, init, the filter, the program."""
    process = plan_identity.process_of(spec)
    found: list[Step] = []
    flags = plan_identity.filter_flags(spec) | options.filter_flags
    if spec.annotations.get(oci.INIT) == "true":
        after = plan_identity.wanted_sets(process)
        found.append(s.Init(flags, options.filter_program, after.effective, after.permitted, after.inheritable))
        found.append(s.Session())
    if process.terminal:
        terminal = s.Slot(plan_mounts.TERMINAL_SLOT, "terminal")
        found.append(s.Stdio(terminal, terminal, terminal, controlling=True))
    if options.late_streams:
        found.append(s.Stdio(stdin, stdout, stderr))
    program = execute(process.args, process.env)
    if options.oci and not (options.undumpable or options.start_later or flags & LISTENER_FLAGS):
        # It has been compared. Root of the container, where that is the caller, would find a process without a filter.
        found.append(s.Dumpable(0))
    if options.start_later:
        told = s.Slot(FIRST_LATE_SLOT + 1 + options.preserve, "state")
        found += [s.Find(program.places, process.args[0]), s.WaitStart(s.Slot(FIRST_LATE_SLOT, "socket of start"))]
        # Nobody would answer for them: what is notified of fails in hooks with ENOSYS.
        found += plan_process.container_hooks(
            spec, "startContainer", told, flags & ~LISTENER_FLAGS, options.filter_program
        )
    if options.preserve:
        found.append(s.Preserve(s.Slot(FIRST_LATE_SLOT + 1, "the caller's descriptors"), options.preserve))
    if options.filter_program:
        found.append(s.Seccomp(flags, options.filter_program))
    found.append(program)
    return tuple(found)


def execute(args: tuple[str, ...], environment: tuple[str, ...]) -> s.Execute:
    """Give the last step: the places where execvp(3) would look, with the container's own PATH."""
    if not args:
        raise StockadeError("no program was named", hint="give PROGRAM after the options")
    program = args[0]
    if "/" in program:
        places: tuple[str, ...] = (program,)
    else:
        path = next((value[5:] for value in environment if value.startswith("PATH=")), DEFAULT_PATH)
        places = tuple(f"{directory}/{program}" for directory in path.split(":") if directory)[:255]
    return s.Execute(places, args, environment)
