"""Who the program is: ids, capability sets, limits, filter flags, and what must be read back of them."""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox import plan_process
from stockade.sandbox import steps as s
from stockade.sandbox.linux import capabilities
from stockade.sandbox.linux.record import Record
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan_mount_options import RDONLY, clean, flags_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stockade.sandbox.plan import Options
    from stockade.sandbox.steps import Step

#: seccomp(2); TSYNC means nothing for a process of one thread
FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0x20,
}
SYS_ADMIN = 1 << 21


class Expected(Record):
    """What must be read from /proc: `before` when the process stands ready, `after` once the program runs.

    The sets are masks. `uid` and `gid` are the container's; `uid_map`, `gid_map` as (inside, outside, size), empty
    where the user namespace is not new. `new` holds OCI types of namespaces that must differ from ours, `joined` types
    and paths of those that must be the ones named. `read_only` are mount points that must be read-only, `filtered`
    whether a filter must be there.
    """

    before: capabilities.Sets
    after: capabilities.Sets
    uid: int
    gid: int
    uid_map: tuple[tuple[int, int, int], ...]
    gid_map: tuple[tuple[int, int, int], ...]
    new: tuple[str, ...]
    no_new_privs: bool
    filtered: bool
    read_only: tuple[str, ...]
    joined: tuple[tuple[str, str], ...] = ()


def map_text(mappings: Sequence[oci.LinuxIDMapping]) -> str:
    """Give the text for /proc/PID/uid_map."""
    return "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in mappings)


def process_of(spec: oci.Spec) -> oci.Process:
    """Give the program's part of the Spec. Raises StockadeError where there is none."""
    if spec.process is None:
        raise StockadeError("the spec has no process", hint="config.json needs one to be run")
    return spec.process


def root_of(spec: oci.Spec) -> oci.Root:
    """Give the root's part of the Spec. Raises StockadeError where there is none."""
    if spec.root is None:
        raise StockadeError("the spec has no root", hint="config.json needs one to be run")
    return spec.root


def maps_zero(spec: oci.Spec) -> bool:
    """Tell whether id 0 exists inside."""
    return any(m.container_id == 0 for m in spec.linux.uid_mappings) and any(
        m.container_id == 0 for m in spec.linux.gid_mappings
    )


def wanted_sets(process: oci.Process) -> capabilities.Sets:
    """Give the five sets of the Spec; none stated means none granted."""
    wanted = process.capabilities or oci.LinuxCapabilities()
    mask = capabilities.mask
    return capabilities.Sets(
        bounding=mask(wanted.bounding),
        effective=mask(wanted.effective),
        inheritable=mask(wanted.inheritable),
        permitted=mask(wanted.permitted),
        ambient=mask(wanted.ambient),
    )


def _sets_before(process: oci.Process, *, filtered: bool) -> capabilities.Sets:
    """Give the sets up to execve.

    Without no_new_privs the filter needs CAP_SYS_ADMIN, which execve takes away again.
    """
    wanted = wanted_sets(process)
    if process.no_new_privileges or not filtered:
        return wanted
    return wanted.replace(effective=wanted.effective | SYS_ADMIN, permitted=wanted.permitted | SYS_ADMIN)


def identity(spec: oci.Spec, options: Options) -> Iterator[Step]:
    """Give the steps from the bounding set to no_new_privs."""
    process = process_of(spec)
    yield from plan_process.attributes(spec)
    for limit in process.rlimits:
        name = limit.type.removeprefix("RLIMIT_")
        if name not in plan_process.RLIMITS:
            raise StockadeError(f"unknown resource limit {limit.type}", hint=f"known: {' '.join(plan_process.RLIMITS)}")
        yield s.Rlimit(plan_process.RLIMITS[name], limit.soft, limit.hard, name.lower())
    before = _sets_before(process, filtered=bool(options.filter_program))
    yield s.Bounding(before.bounding)
    if securebits := int(spec.annotations.get(oci.SECUREBITS, "0")):
        yield s.Securebits(securebits)
    set_groups = spec.annotations.get(oci.SETGROUPS) != "deny"
    user = process.user
    yield s.SetIds(
        user.uid, user.gid, set_groups, keep_capabilities=True, groups=user.additional_gids if set_groups else ()
    )
    yield s.Capabilities(before.effective, before.permitted, before.inheritable)
    yield s.Ambient(before.ambient)
    yield from plan_process.labels(process)
    if process.no_new_privileges:
        yield s.NoNewPrivs()


def filter_flags(spec: oci.Spec) -> int:
    """Give the flags for seccomp(2)."""
    flags = 0
    for name in (spec.linux.seccomp.flags or ()) if spec.linux.seccomp else ():
        if name not in FILTER_FLAGS:
            raise StockadeError(f"seccomp flag {name} is not supported", hint=f"supported: {' '.join(FILTER_FLAGS)}")
        flags |= FILTER_FLAGS[name]
    return flags


def expected(spec: oci.Spec, new: Sequence[str], options: Options) -> Expected:
    """Give what the supervisor compares with /proc."""
    process = process_of(spec)
    filtered = bool(options.filter_program)
    read_only = []
    if "mount" in new:
        found = {clean(mount.destination): flags_of(mount.options).all_attributes & RDONLY for mount in spec.mounts}
        read_only = [place for place, bit in found.items() if bit]  # of two on one place the last covers the other
        if root_of(spec).readonly:
            read_only.append("/")
    return Expected(
        before=_sets_before(process, filtered=filtered),
        after=wanted_sets(process),
        uid=process.user.uid,
        gid=process.user.gid,
        uid_map=tuple((m.container_id, m.host_id, m.size) for m in spec.linux.uid_mappings) if "user" in new else (),
        gid_map=tuple((m.container_id, m.host_id, m.size) for m in spec.linux.gid_mappings) if "user" in new else (),
        new=tuple(new),
        no_new_privs=process.no_new_privileges,
        filtered=filtered,
        read_only=tuple(read_only),
        joined=tuple((n.type, n.path) for n in spec.linux.namespaces if n.path),
    )
