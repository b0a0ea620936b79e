"""The part of a plan about the root file system: mounts, devices, masks, pivot_root.

Everything is mounted onto a descriptor that openat2(2) found inside the root, in the order of the Spec, so that a mount
point is looked for in what the earlier mounts made. Links in the root can lead nowhere else.
"""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox import steps as s
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan_identity import process_of, root_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.sandbox.plan import Options, Slots
    from stockade.sandbox.steps import Slot, Step

O_PATH = 0o10000000
O_DIRECTORY = 0o200000
S_IFCHR, S_IFBLK, S_IFIFO, S_IFDIR = 0o020000, 0o060000, 0o010000, 0o040000
MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE = 1 << 14, 1 << 18, 1 << 19, 1 << 20, 1 << 17
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
ATIME_MASK = 0x70
#: the step Terminal puts the slave here; above all slots that a plan hands out in order
TERMINAL_SLOT = 2000

#: the devices that every container has, runtime-spec config-linux.md "Default Devices"
DEFAULT_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
DEFAULT_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)

#: option of fstab → bits of mount_setattr(2) set and cleared; "ro" of a bind means the whole tree
_ATTRIBUTES = {
    "ro": (RDONLY, 0), "rw": (0, RDONLY), "nosuid": (NOSUID, 0), "suid": (0, NOSUID), "nodev": (NODEV, 0),
    "dev": (0, NODEV), "noexec": (NOEXEC, 0), "exec": (0, NOEXEC), "noatime": (0x10, 0), "atime": (0, 0x10),
    "relatime": (0, 0), "strictatime": (0x20, 0), "nodiratime": (0x80, 0), "diratime": (0, 0x80),
    "nosymfollow": (0x200000, 0), "symfollow": (0, 0x200000), "defaults": (0, 0),
}  # fmt: skip
#: the recursive forms mean the same here: what is set on a bind is set on all of it
ATTRIBUTES = _ATTRIBUTES | {f"r{name}": bits for name, bits in _ATTRIBUTES.items()}
PROPAGATION = {
    "private": (MS_PRIVATE, False), "rprivate": (MS_PRIVATE, True), "slave": (MS_SLAVE, False),
    "rslave": (MS_SLAVE, True), "shared": (MS_SHARED, False), "rshared": (MS_SHARED, True),
    "unbindable": (MS_UNBINDABLE, False), "runbindable": (MS_UNBINDABLE, True),
}  # fmt: skip


class Flags:
    """The options of one mount, sorted: bits to set, propagation, recursion, and what the file system itself gets."""

    def __init__(self, options: tuple[str, ...]) -> None:
        self.attributes = 0
        self.propagation: list[tuple[int, bool]] = []
        self.recursive = self.idmap = False
        self.data: list[tuple[str, str]] = []
        for option in options:
            if option in ATTRIBUTES:
                bits, cleared = ATTRIBUTES[option]
                if bits & ATIME_MASK:
                    cleared |= ATIME_MASK
                self.attributes = self.attributes & ~cleared | bits
            elif option in PROPAGATION:
                self.propagation.append(PROPAGATION[option])
            elif option in {"bind", "rbind"}:
                self.recursive = option == "rbind"
            elif option in {"idmap", "ridmap"}:
                self.idmap = True
            else:
                key, _, value = option.partition("=")
                self.data.append((key, value))


def is_bind(mount: oci.Mount) -> bool:
    """Tell whether the mount shows a path of the host."""
    return mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options


def tree_inputs(spec: oci.Spec, slots: Slots, options: Options) -> dict[str, Slot]:
    """Give a slot for each source that the supervisor copies for a child that may not reach it by itself.

    A child in a user namespace has no capability over the host's files. What everyone may reach it opens itself, which
    is cheaper: the paths below /usr, /dev and the like that the modes bind.
    """
    namespace = spec.linux.namespace("user")
    if not options.privileged or namespace is None:
        return {}
    trees = {}
    if spec.annotations.get(oci.ROOT_TMPFS) != "tmpfs":
        trees[ROOT] = slots.input("tree", root_of(spec).path)
    for mount in spec.mounts:
        public = mount.source in PUBLIC or mount.source.startswith("/dev/")
        if is_bind(mount) and (not public or Flags(mount.options).idmap):
            # One copy for each mount, by its destination: a detached tree can be attached once.
            trees[mount.destination] = slots.input("mount" if "bind" in mount.options else "tree", mount.source)
    return trees


def shifted(spec: oci.Spec, trees: dict[str, Slot]) -> Iterator[Slot]:
    """Give the copied sources whose ids are shifted by the container's map. Raises StockadeError for one not copied."""
    for mount in spec.mounts:
        if is_bind(mount) and Flags(mount.options).idmap:
            if mount.destination not in trees:
                raise StockadeError(
                    f"mount {mount.destination}: only root shifts ids, and for a user namespace of the container's",
                    hint="leave out idmap",
                )
            yield trees[mount.destination]


#: the key of the root's own tree: no destination of a mount is empty
ROOT = ""
#: where file systems of the kernel and devices are mounted; an image that has a link there is refused
KERNEL_PLACES = ("/proc", "/sys", "/dev")

#: what the modes bind, and every user of the host may open
PUBLIC = frozenset(
    [
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/sys",
        "/proc",
        "/etc/alternatives",
        "/etc/ssl/certs",
        "/etc/ssl/openssl.cnf",
        "/etc/pki/ca-trust",
        "/etc/pki/tls/certs",
        "/etc/ca-certificates",
        "/etc/crypto-policies",
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
    ]
)


def root(spec: oci.Spec, slots: Slots, trees: dict[str, Slot], options: Options) -> Iterator[Step]:
    """Give the steps from the caller's mounts to a root that is pivoted to."""
    process = process_of(spec)
    yield s.Propagation("/", (MS_SLAVE if _follows_the_host(spec) else MS_PRIVATE) | MS_REC)
    host = slots.new("host /")
    yield s.Open(host, "/", O_PATH | O_DIRECTORY)
    top = trees.get(ROOT) or slots.new("root")
    yield from _top(spec, slots, top, trees)
    yield s.Attach(top, host)
    mounted = {mount.destination for mount in spec.mounts}
    for place in KERNEL_PLACES:
        if place not in mounted:
            yield s.RefuseLink(top, place[1:])
    known: dict[str, Slot] = {}
    context = _Context(slots, top, trees, known, options)
    for mount in spec.mounts:
        yield from _mount(mount, context)
    yield from _devices(spec, slots, top, known)
    if process.terminal:
        size = process.console_size or oci.Box(0, 0)
        terminal = s.Slot(TERMINAL_SLOT, "terminal")
        dev = known.get("/dev")
        if dev is None:
            dev = slots.new("/dev in root")
            yield s.EnsureReal(dev, top, "dev")
        yield s.Terminal(dev, terminal, process.user.uid, size.height, size.width)
    if process.cwd != "/":
        yield s.Ensure(slots.new("cwd"), *locate(process.cwd, top, known), directory=True, mode=0o755)
    yield from _kernel_interfaces(spec, slots, top, known)
    if root_of(spec).readonly:
        yield s.SetAttributes(top, RDONLY, 0, 0, recursive=False)
    yield s.Pivot(top)


def _follows_the_host(spec: oci.Spec) -> bool:
    """Tell whether something asks to see what the host mounts later: a copy of a private mount never would."""
    if spec.linux.rootfs_propagation.endswith("slave"):
        return True
    wanted = [how for mount in spec.mounts if is_bind(mount) for how, _ in Flags(mount.options).propagation]
    return MS_SLAVE in wanted or MS_SHARED in wanted


def _top(spec: oci.Spec, slots: Slots, top: Slot, trees: dict[str, Slot]) -> Iterator[Step]:
    top_path = root_of(spec).path
    if spec.annotations.get(oci.ROOT_TMPFS) == "tmpfs":
        size = spec.annotations.get(oci.ROOT_SIZE, "")
        options = (("mode", "0755"), *((("size", size),) if size else ()))
        if size.isdecimal():  # one file a page at most, as the kernel's own limit for all of memory
            options += (("nr_inodes", str(max(int(size) // 4096, 1024))),)
        yield s.Filesystem(top, "tmpfs", NODEV, options)
        for directory in spec.annotations.get(oci.ROOT_DIRECTORIES, "").split():
            name, mode, uid, gid = directory.rsplit(":", 3)
            yield s.MakeNode(top, name, S_IFDIR | int(mode, 8), 0, 0, int(uid), int(gid))
        for link in spec.annotations.get(oci.ROOT_LINKS, "").split():
            name, _, target = link.partition("=")
            yield s.MakeLink(top, name, target)
        for key, content in spec.annotations.items():
            if key.startswith(oci.ROOT_FILE):
                yield s.WriteFile(top, key.removeprefix(oci.ROOT_FILE), 0o644, content.encode())
        return
    if ROOT not in trees:
        source = slots.new("rootfs")
        yield s.Open(source, top_path, O_PATH | O_DIRECTORY)
        yield s.CloneTree(top, source, recursive=True)
    # Device nodes that an image brings are dead, in all that is mounted there.
    yield s.SetAttributes(top, NODEV, 0, 0, recursive=True)
    if root_of(spec).readonly:
        yield s.SetAttributes(top, RDONLY, 0, 0, recursive=True)
        yield s.WritableTop(top)


def locate(path: str, top: Slot, known: dict[str, Slot]) -> tuple[Slot, str]:
    """Give the descriptor from which `path` is looked for, and what is left of it.

    Below the kernel's own file systems that is what we mounted there, not a name in the root: who can rename in the
    root while we work could lead the name elsewhere, where there is nothing to mask.
    """
    for place in KERNEL_PLACES:
        if path.startswith(f"{place}/") and place in known:
            return known[place], path[len(place) + 1 :]
    return top, path


class _Context:
    """What the mounts of one plan share: slots, the root, copied sources, and what is mounted where so far."""

    def __init__(
        self, slots: Slots, top: Slot, trees: dict[str, Slot], known: dict[str, Slot], options: Options
    ) -> None:
        self.slots, self.top, self.trees, self.known, self.options = slots, top, trees, known, options


def _mount(mount: oci.Mount, context: _Context) -> Iterator[Step]:
    slots, top, known = context.slots, context.top, context.known
    flags = Flags(mount.options)
    tree = context.trees.get(mount.destination) if is_bind(mount) else None
    target = slots.new(f"{mount.destination} in root")
    if is_bind(mount):
        copied = tree is not None
        tree = tree or slots.new(mount.source)
        yield from _bind(mount, flags, slots, tree, copied=copied)
    elif mount.type == "cgroup":
        yield from _cgroup(mount, flags, slots, locate(mount.destination, top, known), context.options)
        return
    else:
        tree = slots.new(f"new {mount.type}")
        data = tuple((key, value) for key, value in flags.data if (key, value) != ("newinstance", ""))
        yield s.Filesystem(tree, mount.type, flags.attributes, data)
    if mount.destination in KERNEL_PLACES and mount.destination not in known:
        yield s.EnsureReal(target, top, mount.destination[1:])
    else:
        yield s.EnsureLike(target, *locate(mount.destination, top, known), tree)
    yield s.Attach(tree, target)
    for propagation, recursive in flags.propagation:
        yield s.SetAttributes(tree, 0, 0, propagation, recursive)
    known[mount.destination] = tree


def _bind(mount: oci.Mount, flags: Flags, slots: Slots, tree: Slot, *, copied: bool) -> Iterator[Step]:
    if flags.data:
        raise StockadeError(
            f"mount {mount.destination}: a bind mount has no option {flags.data[0][0]}",
            hint=f"options: {' '.join(ATTRIBUTES)} {' '.join(PROPAGATION)}",
        )
    if not copied:  # by the supervisor
        source = slots.new(f"host {mount.source}")
        yield s.Open(source, mount.source, O_PATH)
        yield s.CloneTree(tree, source, flags.recursive)
    # Of a volume's device nodes none works, unless the mode said so: a bind of /dev or of a node in it.
    attributes = flags.attributes
    if not f"{mount.source}/".startswith("/dev/") and "dev" not in mount.options:
        attributes |= NODEV
    if attributes:
        clear = ATIME_MASK if attributes & ATIME_MASK else 0
        yield s.SetAttributes(tree, attributes, clear, 0, recursive=True)


def _cgroup(mount: oci.Mount, flags: Flags, slots: Slots, place: tuple[Slot, str], options: Options) -> Iterator[Step]:
    target = slots.new(f"{mount.destination} in root")
    if not options.v1:
        tree = slots.new("new cgroup2")
        yield s.Filesystem(tree, "cgroup2", flags.attributes, ())
        yield s.EnsureLike(target, *place, tree)
        yield s.Attach(tree, target)
        return
    holder = slots.new("cgroup tmpfs")
    yield s.Filesystem(holder, "tmpfs", flags.attributes & ~RDONLY, (("mode", "0755"),))
    yield s.EnsureLike(target, *place, holder)
    yield s.Attach(holder, target)
    for name, controllers in options.v1:
        tree, below = slots.new(f"cgroup {name}"), slots.new(f"{mount.destination}/{name} in root")
        words = controllers.split(",")
        data = (("none", ""), ("name", words[0][5:])) if words[0].startswith("name=") else tuple((w, "") for w in words)
        yield s.Filesystem(tree, "cgroup", flags.attributes, data)
        yield s.Ensure(below, holder, name, directory=True, mode=0o755)
        yield s.Attach(tree, below)
    if flags.attributes & RDONLY:
        yield s.SetAttributes(holder, RDONLY, 0, 0, recursive=False)


def _devices(spec: oci.Spec, slots: Slots, top: Slot, known: dict[str, Slot]) -> Iterator[Step]:
    dev = known.get("/dev")
    own = dev is not None and any(m.destination == "/dev" and m.type == "tmpfs" for m in spec.mounts)
    user_namespace = spec.linux.namespace("user") is not None
    given = {device.path for device in spec.linux.devices}
    if own and dev is not None:
        for name, major, minor in DEFAULT_DEVICES:
            if f"/dev/{name}" not in given:
                device = oci.LinuxDevice(f"/dev/{name}", "c", major, minor, 0o666, 0, 0)
                yield _device(device, dev, name, user_namespace=user_namespace)
        for name, target in DEFAULT_LINKS:
            yield s.MakeLink(dev, name, target)
    parents: dict[str, Slot] = {"/dev": dev} if dev is not None else {}
    for device in spec.linux.devices:
        directory, _, name = device.path.rpartition("/")
        if directory not in parents:
            parents[directory] = slots.new(f"{directory} in root")
            yield s.Ensure(parents[directory], *locate(directory, top, known), directory=True, mode=0o755)
        yield _device(device, parents[directory], name, user_namespace=user_namespace)


def _device(device: oci.LinuxDevice, directory: Slot, name: str, *, user_namespace: bool) -> Step:
    kind = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}[device.type]
    if user_namespace and kind != S_IFIFO:
        return s.BindNode(directory, name, device.path, kind, device.major, device.minor)
    mode = kind | (device.file_mode if device.file_mode is not None else 0o666) & 0o7777
    return s.MakeNode(directory, name, mode, device.major, device.minor, device.uid or 0, device.gid or 0)


def _kernel_interfaces(spec: oci.Spec, slots: Slots, top: Slot, known: dict[str, Slot]) -> Iterator[Step]:
    for path in spec.linux.readonly_paths:
        yield s.ReadOnly(*locate(path, top, known))
    if spec.linux.masked_paths:
        null = slots.new("host /dev/null")
        yield s.Open(null, "/dev/null", O_PATH)
        for path in spec.linux.masked_paths:
            place, below = locate(path, top, known)
            yield s.Mask(place, null, below)
