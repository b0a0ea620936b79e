"""Steps about the root file system: mounts, nodes, masks, pivot_root."""

from __future__ import annotations

from stockade.sandbox.steps_base import PROPAGATIONS, Step, attribute_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.steps_base import Slot

ATIME_BITS = 0x70


class Propagation(Step):
    """mount(2) with MS_PRIVATE and the like."""

    why = "no mount made here is seen by the host"
    path: str
    flags: int

    def __str__(self) -> str:
        how = next((word for bit, word in PROPAGATIONS.items() if self.flags & bit), "unchanged")
        return f"make the propagation of {self.path} {how}{', recursively' if self.flags & 1 << 14 else ''}"


class Open(Step):
    """open(2) of a path of the host, before the root changes."""

    why = "of the host, while it can be seen"
    to: Slot
    path: str
    flags: int

    def __str__(self) -> str:
        return f"open {self.path} as {self.to}"


class CloneTree(Step):
    """open_tree(2) with OPEN_TREE_CLONE: a detached copy of a mount, or of all mounts below."""

    why = "a copy of the mount, to change and attach"
    to: Slot
    source: Slot
    recursive: bool

    def __str__(self) -> str:
        return f"copy the mount at {self.source}{' and those below' if self.recursive else ''} as {self.to}"


class Filesystem(Step):
    """fsopen, fsconfig, fsmount (Linux 5.2): a new file system, detached."""

    why = "a file system of the container's own"
    to: Slot
    type: str
    attributes: int
    options: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        options = " ".join(f"{key}={value}" if value else key for key, value in self.options)
        return (
            f"make a {self.type} as {self.to} ({' '.join(filter(None, (attribute_names(self.attributes), options)))})"
        )


class Attach(Step):
    """move_mount(2) from a descriptor to a descriptor."""

    why = "onto what was opened: no path is looked up a second time"
    tree: Slot
    target: Slot

    def __str__(self) -> str:
        return f"mount {self.tree} on {self.target}"


class SetAttributes(Step):
    """mount_setattr(2)."""

    why = "the whole tree, submounts too, where recursive"
    mount: Slot
    set: int
    clear: int
    propagation: int
    recursive: bool

    def __str__(self) -> str:
        words = [attribute_names(self.set)] if self.set else []
        words += [f"not {attribute_names(self.clear)}"] if self.clear else []
        words += [PROPAGATIONS[self.propagation]] if self.propagation else []
        return f"make {self.mount} {', '.join(words)}{', recursively' if self.recursive else ''}"


class Relax(Step):
    """mount_setattr(2), bit by bit where it is refused: what is locked stays."""

    why = "a flag of the source that the Spec takes back; one that an outer user namespace has locked stays on"
    mount: Slot
    set: int
    clear: int
    recursive: bool

    def __str__(self) -> str:
        words = [f"not {attribute_names(bits)}"] if (bits := self.clear & ~ATIME_BITS) else []
        words += [attribute_names(self.set) or "relatime"] if self.clear & ATIME_BITS else []
        return f"make {self.mount} {', '.join(words)} where that is allowed{', recursively' if self.recursive else ''}"


class ReadOnlyBelow(Step):
    """MOUNT_ATTR_RDONLY for all mounts of a tree, and off its top again unless it was there."""

    why = "mount points can still be made in the top; read-only again when all are there"
    mount: Slot

    def __str__(self) -> str:
        return f"make all below the top of {self.mount} read-only"


class Reconfigure(Step):
    """fspick(2) and fsconfig(2): other options for a file system that is mounted."""

    why = "the Spec says remount"
    mount: Slot
    options: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        options = " ".join(f"{key}={value}" if value else key for key, value in self.options)
        return f"change the file system of {self.mount}: {options}"


class ProcRoot(Step):
    """fstatfs(2): the root of a procfs."""

    why = "programs and this runtime itself look for the truth in /proc (CVE-2019-16884)"
    mount: Slot

    def __str__(self) -> str:
        return f"refuse {self.mount} if it is not the root of a procfs"


class OpenInside(Step):
    """openat2(2) in a root."""

    why = "what is mounted there already"
    to: Slot
    root: Slot
    path: str

    def __str__(self) -> str:
        return f"open {self.path} in {self.root} as {self.to}"


class LikeCovered(Step):
    """fchmod(2) of a new file system's root as the directory has it that it covers; with 4 a copy of all in it."""

    why = "a tmpfs over /tmp is as open as /tmp was (runc does the same); tmpcopyup"
    tree: Slot
    root: Slot
    path: str
    what: int

    def __str__(self) -> str:
        words = [word for bit, word in ((1, "mode"), (2, "owner"), (4, "content")) if self.what & bit]
        return f"give {self.tree} the {', '.join(words)} of {self.path} in {self.root}"


class Ensure(Step):
    """openat2 in a root, made where missing, component by component."""

    why = "missing mount points are made inside the root"
    to: Slot
    root: Slot
    path: str
    directory: bool
    mode: int

    def __str__(self) -> str:
        return f"make sure of the {'directory' if self.directory else 'file'} {self.path} in {self.root}, as {self.to}"


class EnsureLike(Step):
    """Ensure with a directory or a file, as the tree has it that will cover it."""

    why = "missing mount points are made inside the root"
    to: Slot
    root: Slot
    path: str
    tree: Slot

    def __str__(self) -> str:
        return f"make sure of {self.path} in {self.root}, of the kind of {self.tree}, as {self.to}"


class EnsureReal(Step):
    """openat2(2) without any link, made where missing: looked at and held in one step."""

    why = (
        "a linked /proc, /sys or /dev aims the runtime's own mounts (CVE-2019-16884, CVE-2023-27561, CVE-2026-41579), "
        "also one that is put there a moment later (CVE-2021-30465)"
    )
    to: Slot
    root: Slot
    name: str

    def __str__(self) -> str:
        return f"make sure of the directory /{self.name} of {self.root}, which may not be a link, as {self.to}"


class RefuseLink(Step):
    """fstatat(2): the name must not be a symbolic link."""

    why = "a linked /proc, /sys or /dev aims the runtime's own mounts (CVE-2019-16884, CVE-2023-27561, CVE-2026-41579)"
    root: Slot
    name: str

    def __str__(self) -> str:
        return f"refuse {self.root} if its /{self.name} is a symbolic link"


class MakeNode(Step):
    """mknodat or mkdirat in a directory of our own making."""

    why = "the device itself, in a file system that no image wrote"
    directory: Slot
    name: str
    mode: int
    major: int
    minor: int
    uid: int
    gid: int

    def __str__(self) -> str:
        if self.mode & 0o170000 == 0o040000:
            return f"make the directory {self.name} in {self.directory}"
        kind = {0o020000: "c", 0o060000: "b", 0o010000: "p"}.get(self.mode & 0o170000, "file")
        return f"make {self.name} in {self.directory}: {kind} {self.major}:{self.minor} mode {self.mode & 0o7777:04o}"


class BindNode(Step):
    """Bind a device node of the host, after a look at its type and number."""

    why = "mknod(2) is refused in a user namespace; the node must be the device that is meant (CVE-2025-31133)"
    directory: Slot
    name: str
    source: str
    type: int
    major: int
    minor: int

    def __str__(self) -> str:
        return f"bind the host's {self.source} ({self.major}:{self.minor}) as {self.name} in {self.directory}"


class MakeLink(Step):
    """symlinkat(2) in a directory of our own making."""

    why = "names that programs expect"
    directory: Slot
    name: str
    target: str

    def __str__(self) -> str:
        return f"link {self.name} to {self.target} in {self.directory}"


class Device(Step):
    """mknodat(2), or the host's node bound where that is refused or `bind` says so; the right one there is left."""

    why = "the device that the Spec names; never another node, whatever the image has there (CVE-2025-31133)"
    directory: Slot
    name: str
    source: str
    mode: int
    major: int
    minor: int
    uid: int
    gid: int
    bind: bool

    def __str__(self) -> str:
        kind = {0o020000: "c", 0o060000: "b"}.get(self.mode & 0o170000, "p")
        verb = "bind the host's" if self.bind else "make"
        return f"{verb} {self.name} in {self.directory}: {kind} {self.major}:{self.minor} mode {self.mode & 0o7777:04o}"


class Link(Step):
    """symlinkat(2) in a directory that may be the image's; what is there stays, unless it is to be replaced."""

    why = "names that programs expect"
    directory: Slot
    name: str
    target: str
    replace_: bool

    def __str__(self) -> str:
        return f"link {self.name} to {self.target} in {self.directory} unless it is there"


class Mask(Step):
    """Cover a file with the null device and a directory with an empty tmpfs."""

    why = "what a container has no business to read or write"
    root: Slot
    null: Slot
    path: str

    def __str__(self) -> str:
        return f"mask {self.path} in {self.root}"


class ReadOnly(Step):
    """Bind a path over itself, read-only and the like with all below."""

    why = "capabilities don't guard these: uid 0 with none can write them"
    root: Slot
    path: str
    attributes: int

    def __str__(self) -> str:
        return f"make {self.path} in {self.root} read-only"


class WriteFile(Step):
    """Create a small file in a directory of our own making."""

    why = "files that programs expect, made for this container"
    directory: Slot
    name: str
    mode: int
    data: bytes

    def __str__(self) -> str:
        return f"write {self.name} in {self.directory} ({len(self.data)} bytes)"


class Pivot(Step):
    """pivot_root(".", "."), pivot_root(2), and detach the old root."""

    why = "the host's file system is gone, not merely hidden"
    root: Slot

    def __str__(self) -> str:
        return f"make {self.root} the root and detach the old one"


class MoveRoot(Step):
    """chroot(2) into a root that is mounted over the old one, after the old one's procfs and sysfs are gone."""

    why = "--no-pivot: where the old root is the initramfs, pivot_root(2) is refused"
    root: Slot

    def __str__(self) -> str:
        return f"make {self.root} the root by chroot and detach the kernel's file systems of the old one"


class Chroot(Step):
    """chroot(2)."""

    why = "the mount namespace is another's: its root is left alone"
    root: Slot

    def __str__(self) -> str:
        return f"change the root to {self.root}"


class Idmap(Step):
    """mount_setattr(2) with MOUNT_ATTR_IDMAP (Linux 5.12): a user namespace of these maps, or the new process's."""

    why = "the files on disk belong to ids that the container doesn't have: their 0 becomes its 0"
    tree: Slot
    uids: str = ""
    gids: str = ""
    recursive: bool = True

    def __str__(self) -> str:
        by = f"the map {' '.join(self.uids.split())}" if self.uids else "the container's map"
        return f"shift the ids of {self.tree} by {by}{'' if self.recursive else ', not of mounts below'}"
