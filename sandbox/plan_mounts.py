"""The part of a plan about the root file system: mounts, devices, masks, pivot_root.

Everything is mounted onto a descriptor that openat2(2) found inside the root, in the order of the Spec, so that a mount
point is looked for in what the earlier mounts made. Links in the root can lead nowhere else.
"""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox import plan_devices
from stockade.sandbox import steps as s
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan_devices import TERMINAL_SLOT
from stockade.sandbox.plan_identity import process_of, root_of
from stockade.sandbox.plan_mount_options import (
    ATIME_MASK,
    ATTRIBUTES,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    NODEV,
    NOEXEC,
    NOSUID,
    PROPAGATION,
    RDONLY,
    Flags,
    clean,
    flags_of,
    idmap_of,
    is_bind,
    refuse_data,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.sandbox.plan import Options, Slots
    from stockade.sandbox.steps import Slot, Step

__all__ = ["ATTRIBUTES", "PROPAGATION", "ROOT", "TERMINAL_SLOT", "Context", "Flags", "is_bind", "root", "tree_inputs"]

O_PATH = 0o10000000
O_DIRECTORY = 0o200000
#: unix(7): a packet brings 253 descriptors, of which the launcher has two for itself
MAX_INPUTS = 250
#: step LikeCovered
KEEP_MODE, KEEP_OWNER, CONTENT = 1, 2, 4

#: the key of the root's own tree; a mount's is its number
ROOT = ""
#: where file systems of the kernel and devices are mounted; an image that has a link there is refused
KERNEL_PLACES = ("/proc", "/sys", "/dev")
#: what may be mounted on below /proc, as lxcfs does; runc has the same list
PROC_FILES = frozenset({
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
    "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
})  # fmt: skip

#: what the modes bind, and every user of the host may open
PUBLIC = frozenset({
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys", "/proc", "/etc/alternatives",
    "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ca-certificates",
    "/etc/crypto-policies", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
})  # fmt: skip


def tree_inputs(spec: oci.Spec, slots: Slots, options: Options) -> dict[str, Slot]:
    """Give a slot for each source that the supervisor copies for a child that may not reach it by itself.

    A child in a user namespace has no capability over the host's files. What everyone may reach it opens itself, which
    is cheaper: the paths below /usr, /dev and the like that the modes bind. Where ids are shifted all is copied.
    """
    trees: dict[str, Slot] = {}
    if not options.privileged or not _own_mounts(spec, options):
        return trees
    confined = spec.linux.namespace("user") is not None
    if confined and spec.annotations.get(oci.ROOT_TMPFS) != "tmpfs":
        trees[ROOT] = slots.input("tree", root_of(spec).path)
    for number, mount in enumerate(spec.mounts):
        flags = flags_of(mount.options)
        if not is_bind(mount) or flags.remount:
            continue
        public = not options.oci and (mount.source in PUBLIC or mount.source.startswith("/dev/"))
        if idmap_of(mount, flags) or (confined and not public):
            # One copy for each mount: a detached tree can be attached once.
            kind = "tree" if flags.recursive else "mount"
            trees[str(number)] = slots.input(kind, mount.source)
    if slots.count > MAX_INPUTS:
        raise StockadeError(
            f"{len(trees)} sources of mounts are to be opened by root: more than {MAX_INPUTS} descriptors don't fit",
            hint="mount a directory above them, or do without the user namespace",
        )
    return trees


def shifted(spec: oci.Spec, trees: dict[str, Slot]) -> Iterator[Step]:
    """Give the steps that shift the ids of copied sources, by the mount's own map or the container's.

    Raises StockadeError for one that was not copied, or where there is no map.
    """
    for number, mount in enumerate(spec.mounts):
        how = idmap_of(mount, flags_of(mount.options))
        if how:
            from stockade.sandbox.plan_mounts_seldom import shift

            yield shift(mount, trees.get(str(number)), recursive=how == "all", mapped=_mapped(spec))


def _mapped(spec: oci.Spec) -> bool:
    return spec.linux.namespace("user") is not None


class Context:
    """What the steps about one root share: slots, the root, copied sources, and what is mounted where so far.

    `known` has the trees at KERNEL_PLACES, `directories` the open parents of devices, `late` what becomes read-only
    when everything is there.
    """

    def __init__(self, spec: oci.Spec, slots: Slots, top: Slot, trees: dict[str, Slot], options: Options) -> None:
        self.spec, self.slots, self.top, self.trees, self.options = spec, slots, top, trees, options
        self.known: dict[str, Slot] = {}
        self.directories: dict[str, Slot] = {}
        self.late: list[Slot] = []
        self.follows = _follows_the_host(spec)
        self._target, self._source = slots.new("mount point"), slots.new("source")

    def target(self, path: str) -> Slot:
        """Give the slot for a mount point; it is the same for all, one after the other."""
        return s.Slot(self._target.number, f"{path} in root")

    def source(self, path: str) -> Slot:
        """Give the slot for a source on the host; it is the same for all, one after the other."""
        return s.Slot(self._source.number, f"host {path}")

    def locate(self, path: str) -> tuple[Slot, str]:
        """Give the descriptor from which `path` is looked for, and what is left of it.

        Below the kernel's own file systems that is what we mounted there, not a name in the root: who can rename in the
        root while we work could lead the name elsewhere, where there is nothing to mask.
        """
        for place in KERNEL_PLACES:
            if path.startswith(f"{place}/") and place in self.known:
                return self.known[place], path[len(place) + 1 :]
        return self.top, path

    def directory(self, path: str) -> Iterator[Step]:
        """Give the step after which `directories` has that one of the root, unless it was given before."""
        if path in self.directories:
            return
        slot = self.known.get(path) or self.slots.new(f"{path or '/'} in root")
        self.directories[path] = slot
        if path not in self.known:
            if path in KERNEL_PLACES:
                yield s.EnsureReal(slot, self.top, path[1:])
            else:
                yield s.Ensure(slot, *self.locate(path or "/"), directory=True, mode=0o755)


def root(spec: oci.Spec, slots: Slots, trees: dict[str, Slot], options: Options) -> Iterator[Step]:
    """Give the steps from the caller's mounts to a root that is pivoted to."""
    if not _own_mounts(spec, options):
        from stockade.sandbox.plan_mounts_seldom import without_mounts

        yield from without_mounts(spec, slots)
        return
    yield from _shared_sources(spec, slots, trees, options)
    yield s.Propagation("/", (MS_SLAVE if _follows_the_host(spec) else MS_PRIVATE) | MS_REC)
    host = slots.new("host /")
    yield s.Open(host, "/", O_PATH | O_DIRECTORY)
    top = trees.get(ROOT) or slots.new("root")
    yield from _top(spec, slots, top, copied=ROOT in trees, literal=options.oci)
    yield s.Attach(top, host)
    places = {clean(mount.destination) for mount in spec.mounts}
    for place in KERNEL_PLACES:
        if place not in places:
            yield s.RefuseLink(top, place[1:])
    context = Context(spec, slots, top, trees, options)
    for number, mount in enumerate(spec.mounts):
        yield from _mount(mount, str(number), context)
    yield from plan_devices.devices(spec, context)
    yield from plan_devices.terminal(spec, context)
    cwd = process_of(spec).cwd
    if cwd != "/":
        yield s.Ensure(context.target(cwd), *context.locate(cwd), directory=True, mode=0o755)
    yield from _kernel_interfaces(spec, context)
    for tree in context.late:
        yield s.SetAttributes(tree, RDONLY, 0, 0, recursive=False)
    if root_of(spec).readonly:
        yield s.SetAttributes(top, RDONLY, 0, 0, recursive=False)
    yield from _enter(spec, top, options)


def _own_mounts(spec: oci.Spec, options: Options) -> bool:
    namespace = spec.linux.namespace("mount")
    return not options.oci or (namespace is not None and not namespace.path)


def _inherits(spec: oci.Spec) -> bool:
    """Tell whether mounts of which nothing else is said see what the host mounts later."""
    return spec.linux.rootfs_propagation.endswith(("slave", "shared"))


def _enter(spec: oci.Spec, top: Slot, options: Options) -> Iterator[Step]:
    yield s.MoveRoot(top) if options.no_pivot else s.Pivot(top)
    if options.oci and spec.linux.rootfs_propagation:
        how, recursive = PROPAGATION[spec.linux.rootfs_propagation]
        yield s.Propagation("/", how | (MS_REC if recursive else 0))


def _follows_the_host(spec: oci.Spec) -> bool:
    """Tell whether something asks to see what the host mounts later: a copy of a private mount never would."""
    if _inherits(spec):
        return True
    flags = [flags_of(mount.options) for mount in spec.mounts if is_bind(mount)]
    return any(each.wants(MS_SLAVE) or each.wants(MS_SHARED) for each in flags)


def _shared_sources(spec: oci.Spec, slots: Slots, trees: dict[str, Slot], options: Options) -> Iterator[Step]:
    """Copy what mounts are to be shared with the host before the host's mounts are cut off.

    Only where the Spec says so of the root as well, as runc has it, and never across a user namespace.
    """
    if not options.oci:
        return
    for number, mount in enumerate(spec.mounts):
        flags = flags_of(mount.options)
        if str(number) not in trees and is_bind(mount) and _peers(spec, flags):
            source, tree = slots.new(f"host {mount.source}"), slots.new(mount.source)
            yield s.Open(source, mount.source, O_PATH)
            yield s.CloneTree(tree, source, flags.recursive)
            trees[str(number)] = tree


def _peers(spec: oci.Spec, flags: Flags) -> bool:
    """Tell whether what is mounted below a bind mount is to be seen by the host, and the other way round."""
    shared = spec.linux.rootfs_propagation.endswith("shared") and flags.wants(MS_SHARED)
    return shared and spec.linux.namespace("user") is None


def _top(spec: oci.Spec, slots: Slots, top: Slot, *, copied: bool, literal: bool) -> Iterator[Step]:
    if spec.annotations.get(oci.ROOT_TMPFS) == "tmpfs":
        from stockade.sandbox.plan_mounts_seldom import embedded

        yield from embedded(spec, top)
        return
    if not copied:
        source = slots.new("rootfs")
        yield s.Open(source, root_of(spec).path, O_PATH | O_DIRECTORY)
        yield s.CloneTree(top, source, recursive=True)
    # Device nodes that an image brings are dead, in all that is mounted there. A runtime does what config.json says:
    # there the device controller guards. A copy that the supervisor made is still a peer of the host's mount.
    propagation = MS_SLAVE if _inherits(spec) else MS_PRIVATE if copied or _follows_the_host(spec) else 0
    if propagation or not literal:
        yield s.SetAttributes(top, 0 if literal else NODEV, 0, propagation, recursive=True)
    if root_of(spec).readonly:
        yield s.ReadOnlyBelow(top)


def _mount(mount: oci.Mount, number: str, context: Context) -> Iterator[Step]:
    flags, place = flags_of(mount.options), clean(mount.destination)
    mount = mount.replace(destination=place)
    if context.options.oci:
        _check_place(mount)
    if flags.remount:
        from stockade.sandbox.plan_mounts_seldom import remount

        yield from remount(mount, flags, context)
        return
    if mount.type == "cgroup" and not is_bind(mount):
        from stockade.sandbox.plan_cgroup_mounts import cgroup

        yield from cgroup(mount, flags, context, context.locate(place))
        return
    tree = context.trees.get(number) or context.slots.new(mount.source if is_bind(mount) else f"new {mount.type}")
    if is_bind(mount):
        yield from _bind(mount, flags, context, tree, copied=number in context.trees)
    else:
        yield from _filesystem(mount, flags, context, tree)
    yield from _point(place, tree, context)
    yield s.Attach(tree, context.target(place))
    for propagation, recursive in flags.propagation:
        yield s.SetAttributes(tree, 0, 0, propagation, recursive)
    if place in KERNEL_PLACES:
        context.known[place] = tree


def _check_place(mount: oci.Mount) -> None:
    """Refuse what runc refuses: a mount on the root, and over parts of /proc; checked again when it has been opened."""
    place = mount.destination
    if place == "/":
        raise StockadeError("a mount on / would hide the root file system", hint="change root.path instead")
    if place.startswith("/proc/") and place not in PROC_FILES:
        raise StockadeError(
            f"mount {place}: nothing is mounted inside /proc, where programs look for the truth about themselves",
            hint=f"except on {' '.join(sorted(PROC_FILES))}",
        )
    if place == "/proc" and not is_bind(mount) and mount.type != "proc":
        raise StockadeError(f"mount /proc: type {mount.type} is not proc", hint="mount it elsewhere")


def _point(place: str, tree: Slot, context: Context) -> Iterator[Step]:
    target = context.target(place)
    if place in KERNEL_PLACES:
        yield s.EnsureReal(target, context.top, place[1:])
    elif place in PROC_FILES and "/proc" in context.known:
        yield s.Ensure(target, *context.locate(place), directory=False, mode=0o644)
    else:
        yield s.EnsureLike(target, *context.locate(place), tree)


def _filesystem(mount: oci.Mount, flags: Flags, context: Context, tree: Slot) -> Iterator[Step]:
    literal, attributes = context.options.oci, flags.all_attributes
    if not mount.type:
        raise StockadeError(f"mount {mount.destination}: it has no type", hint="give the type, or the option bind")
    if idmap_of(mount, flags):
        raise StockadeError(f"mount {mount.destination}: only a bind mount has ids to shift", hint="leave out idmap")
    data = [pair for pair in flags.data if pair != ("newinstance", "")]  # every devpts is one, since Linux 4.7
    if literal:
        data = [(word, "") for word in flags.superblock] + data
        data[:0] = [("source", mount.source)] if mount.source else []
        if context.spec.linux.mount_label and mount.type in {"tmpfs", "mqueue", "devpts"}:
            data.append(("context", context.spec.linux.mount_label))
        if attributes & RDONLY and mount.type not in {"tmpfs", "proc", "sysfs", "mqueue", "devpts", "cgroup2"}:
            data.append(("ro", ""))  # the device itself isn't written either
    # Mount points and devices can still be made in these: read-only when all are there.
    late = attributes & RDONLY and (mount.type == "tmpfs" or mount.destination == "/dev")
    if late:
        attributes &= ~RDONLY
        context.late.append(tree)
    yield s.Filesystem(tree, mount.type, attributes, tuple(data))
    if literal and mount.type == "tmpfs":
        given = {key for key, _ in data}
        keep = 0 if "mode" in given else KEEP_MODE
        if flags.copy_up:
            keep |= CONTENT | (0 if given & {"uid", "gid"} else KEEP_OWNER)
        if keep:
            yield s.LikeCovered(tree, *context.locate(mount.destination), keep)


def _bind(mount: oci.Mount, flags: Flags, context: Context, tree: Slot, *, copied: bool) -> Iterator[Step]:
    refuse_data(mount, flags)
    if not copied:  # by the supervisor, or before the host's mounts were cut off
        source = context.source(mount.source)
        yield s.Open(source, mount.source, O_PATH)
        yield s.CloneTree(tree, source, flags.recursive)
    if context.options.oci:
        yield from _literal_attributes(mount, flags, context, tree, copied=copied)
        return
    # Of a volume's device nodes none works, unless the mode said so: a bind of /dev or of a node in it.
    attributes = flags.all_attributes
    if not f"{mount.source}/".startswith("/dev/") and "dev" not in mount.options:
        attributes |= NODEV
    propagation = _cut_off(flags, context) if copied else 0
    if attributes or propagation:
        clear = ATIME_MASK if attributes & ATIME_MASK else 0
        yield s.SetAttributes(tree, attributes, clear, propagation, recursive=True)


def _cut_off(flags: Flags, context: Context) -> int:
    """Give the propagation that makes a copy of a host's mount no peer of it: what is mounted inside stays inside."""
    follows = _inherits(context.spec) and not flags.propagation
    return MS_SLAVE if follows or flags.wants(MS_SLAVE) or flags.wants(MS_SHARED) else MS_PRIVATE


def _literal_attributes(
    mount: oci.Mount, flags: Flags, context: Context, tree: Slot, *, copied: bool
) -> Iterator[Step]:
    """As the Spec says, with one thing beside: read-only holds for all that is mounted below, as Docker has it."""
    if mount.destination == "/proc":
        yield s.ProcRoot(tree)
    propagation = 0
    if not _peers(context.spec, flags) and (copied or context.follows):
        propagation = _cut_off(flags, context)
    deep = (flags.deep | flags.attributes & RDONLY) & ~ATIME_MASK
    if deep or propagation:
        yield s.SetAttributes(tree, deep, 0, propagation, recursive=True)
    if own := flags.attributes & ~ATIME_MASK & ~deep:
        yield s.SetAttributes(tree, own, 0, 0, recursive=False)
    if flags.cleared:
        yield s.Relax(tree, flags.attributes & ATIME_MASK, flags.cleared, recursive=False)
    if flags.deep_cleared:
        yield s.Relax(tree, flags.deep & ATIME_MASK, flags.deep_cleared, recursive=True)


def _kernel_interfaces(spec: oci.Spec, context: Context) -> Iterator[Step]:
    for path in spec.linux.readonly_paths:
        place, below = context.locate(clean(path))
        yield s.ReadOnly(place, below, RDONLY if context.options.oci else RDONLY | NOSUID | NODEV | NOEXEC)
    if spec.linux.masked_paths:
        null = context.slots.new("host /dev/null")
        yield s.Open(null, "/dev/null", O_PATH)
        for path in spec.linux.masked_paths:
            place, below = context.locate(clean(path))
            yield s.Mask(place, null, below)
