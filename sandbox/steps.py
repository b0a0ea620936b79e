"""The steps of a plan: what the launcher can do, one class an operation, in the order of launcher.c's list.

A step has no decision in it. Its fields are encoded in their order: a number or a slot as 8 bytes, a text as its
length, its bytes and zeros up to the next multiple of 8, a tuple as its length and its items. `str(step)` is its line
in `--plan`.
"""

from __future__ import annotations

from _struct import Struct

from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

_word = Struct("<Q").pack
_head = Struct("<II").pack


class Slot(Record):
    """A place for a descriptor in the launcher; `name` says to a reader what the descriptor is."""

    number: int
    name: str

    def __str__(self) -> str:
        return f"[{self.name}]"


def encode_text(data: bytes) -> bytes:
    """Give length, bytes and padding; at least one zero ends them."""
    return _word(len(data)) + data + b"\0" * (8 - len(data) % 8)


def encode_value(value: object) -> bytes:
    """Give the bytes of one field."""
    if isinstance(value, int):
        return _word(value & 0xFFFFFFFFFFFFFFFF)
    if isinstance(value, str):
        return encode_text(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, bytes):
        return encode_text(value)
    if isinstance(value, Slot):
        return _word(value.number)
    if isinstance(value, tuple):
        return _word(len(value)) + b"".join([encode_item(item) for item in value])
    raise TypeError(f"a step can't hold {value!r}")


def encode_item(item: object) -> bytes:
    """Give the bytes of one item of a tuple; a pair is its two values."""
    if isinstance(item, tuple):
        return b"".join([encode_value(value) for value in item])
    return encode_value(item)


#: a slot that no descriptor is ever in: what it stands for stays as it is
NONE = Slot(512, "as it is")


class Step(Record):
    """Base of all steps. `why` is the reason that `--plan` prints; `remedies` maps an errno to what helps."""

    op: ClassVar[int] = -1
    why: ClassVar[str] = ""

    def encode(self) -> bytes:
        """Give operation, length and fields."""
        payload = b"".join([encode_value(getattr(self, name)) for name in self._fields])
        return _head(self.op, len(payload)) + payload


class Clone(Step):
    """Make the process with its namespaces, clone(2); in the cgroup of a slot where there is one (cgroup v2)."""

    why = "a child of the supervisor, with namespaces of its own from its first instruction"
    flags: int
    names: str
    cgroup: int = 512

    def encode(self) -> bytes:
        """Give the flags and the slot; `names` is for readers."""
        payload = _word(self.flags) + _word(self.cgroup)
        return _head(self.op, len(payload)) + payload

    def __str__(self) -> str:
        return f"clone a child with new namespaces: {self.names or 'none'}"


class Place(Step):
    """Write the pid into a cgroup.procs file, cgroups(7)."""

    why = "limits hold before the first instruction of the program"
    procs: Slot

    def __str__(self) -> str:
        return f"put the child into the cgroup {self.procs}"


class WriteMaps(Step):
    """Write uid_map and gid_map, user_namespaces(7)."""

    why = "ids inside are ids outside only as written here"
    uid_map: str
    gid_map: str
    deny_setgroups: bool

    def __str__(self) -> str:
        groups = ", setgroups denied" if self.deny_setgroups else ""
        uids = "; ".join(self.uid_map.split("\n")).rstrip("; ")
        gids = "; ".join(self.gid_map.split("\n")).rstrip("; ")
        return f"map uids {uids} and gids {gids}{groups}"


class WaitMaps(Step):
    """Wait for the launcher's word."""

    why = "nothing is done under ids that are not mapped yet"

    def __str__(self) -> str:
        return "wait until the launcher has placed and mapped this process"


class WaitSupervisor(Step):
    """Wait for the supervisor's word."""

    why = "newuidmap(1) writes the maps: it may use the subordinate ids of this user, we may not"

    def __str__(self) -> str:
        return "wait until newuidmap and newgidmap have written the maps"


class CloseOthers(Step):
    """close_range(2) over everything that is not of this launch."""

    why = "no descriptor of the host reaches a path lookup or the program (CVE-2024-21626)"

    def __str__(self) -> str:
        return "close every descriptor that is not of this launch"


class DeathSignal(Step):
    """PR_SET_PDEATHSIG, prctl(2)."""

    why = "a third guard, after the launcher's pidfd and gc: the program dies with its supervisor"
    signal: int

    def __str__(self) -> str:
        return f"be killed by signal {self.signal} when the supervisor dies"


class SetIds(Step):
    """setgroups, setresgid, setresuid; capabilities are kept where a later step sets them."""

    why = "the ids that the program runs with"
    uid: int
    gid: int
    set_groups: bool
    keep_capabilities: bool
    groups: tuple[int, ...]

    def __str__(self) -> str:
        groups = "groups " + (" ".join(map(str, self.groups)) or "none") if self.set_groups else "groups as they are"
        return f"become uid {self.uid} gid {self.gid}, {groups}"


class Unshare(Step):
    """unshare(2)."""

    why = "the root of a cgroup namespace is where its creator is: after the process was placed"
    flags: int
    names: str

    def encode(self) -> bytes:
        """Give the flags; `names` is for readers."""
        return _head(self.op, 8) + _word(self.flags)

    def __str__(self) -> str:
        return f"unshare {self.names}"


class Join(Step):
    """setns(2) with a namespace descriptor."""

    why = "a namespace that was named by path"
    namespace: Slot
    flag: int

    def __str__(self) -> str:
        return f"join {self.namespace}"


class Propagation(Step):
    """mount(2) with MS_PRIVATE and the like."""

    why = "no mount made here is seen by the host"
    path: str
    flags: int

    def __str__(self) -> str:
        return f"make the propagation of {self.path} {'private' if self.flags & 1 << 18 else 'slave'}, recursively"


class Open(Step):
    """open(2) of a path of the host, before the root changes."""

    why = "of the host, while it can be seen"
    to: Slot
    path: str
    flags: int

    def __str__(self) -> str:
        return f"open {self.path} as {self.to}"


class OpenIn(Step):
    """openat2(2) with RESOLVE_IN_ROOT and no magic links."""

    why = "inside the root, whatever links lie on the way"
    to: Slot
    root: Slot
    path: str
    flags: int

    def __str__(self) -> str:
        return f"open {self.path} in {self.root} as {self.to}"


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


class WritableTop(Step):
    """Take MOUNT_ATTR_RDONLY off the top mount of a tree."""

    why = "mount points can still be made; read-only again when all are there"
    mount: Slot

    def __str__(self) -> str:
        return f"make the top of {self.mount} writable for now"


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


class Mask(Step):
    """Cover a file with the null device and a directory with an empty tmpfs."""

    why = "what a container has no business to read or write"
    root: Slot
    null: Slot
    path: str

    def __str__(self) -> str:
        return f"mask {self.path}"


class ReadOnly(Step):
    """Bind a path over itself, read-only with all below."""

    why = "capabilities don't guard these: uid 0 with none can write them"
    root: Slot
    path: str

    def __str__(self) -> str:
        return f"make {self.path} read-only"


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


class Session(Step):
    """setsid(2)."""

    why = "no session, process group or terminal of the caller"

    def __str__(self) -> str:
        return "start a session"


class Keyring(Step):
    """KEYCTL_JOIN_SESSION_KEYRING, keyctl(2)."""

    why = "keys of the caller's session stay with the caller"

    def __str__(self) -> str:
        return "join a new session keyring"


class Rlimit(Step):
    """setrlimit(2)."""

    why = "as asked for"
    resource: int
    soft: int
    hard: int
    name: str

    def encode(self) -> bytes:
        """Give the three numbers; `name` is for readers."""
        return _head(self.op, 24) + _word(self.resource) + _word(self.soft) + _word(self.hard)

    def __str__(self) -> str:
        return f"limit {self.name} to {self.soft}, at most {self.hard}"


class Hostname(Step):
    """sethostname(2)."""

    why = "in the UTS namespace of its own"
    name: str

    def __str__(self) -> str:
        return f"set the host name {self.name}"


class Domainname(Step):
    """setdomainname(2)."""

    why = "in the UTS namespace of its own"
    name: str

    def __str__(self) -> str:
        return f"set the domain name {self.name}"


class Sysctl(Step):
    """Write a file below /proc/sys of the container's own procfs."""

    why = "before /proc/sys becomes read-only"
    proc: Slot
    path: str
    value: bytes

    def __str__(self) -> str:
        return f"write {self.value.decode('utf-8', 'replace')} to /proc/{self.path}"


class OomScore(Step):
    """Write /proc/self/oom_score_adj, proc(5)."""

    why = "as asked for"
    proc: Slot
    value: str

    def __str__(self) -> str:
        return f"set oom_score_adj to {self.value}"


class Umask(Step):
    """umask(2)."""

    why = "not the caller's"
    mask: int

    def __str__(self) -> str:
        return f"set the umask {self.mask:04o}"


class Bounding(Step):
    """PR_CAPBSET_DROP of all but these."""

    why = "no program executed later can have more"
    keep: int

    def __str__(self) -> str:
        return f"bounding set: {set_names(self.keep)}"


class Securebits(Step):
    """PR_SET_SECUREBITS, capabilities(7)."""

    why = "uid 0 gets nothing for being 0"
    bits: int

    def __str__(self) -> str:
        return f"securebits {self.bits:#x}"


class Capabilities(Step):
    """capset(2)."""

    why = "exactly these"
    effective: int
    permitted: int
    inheritable: int

    def __str__(self) -> str:
        sets = (self.effective, self.permitted, self.inheritable)
        return "effective: {}; permitted: {}; inheritable: {}".format(*map(set_names, sets))


class Ambient(Step):
    """PR_CAP_AMBIENT."""

    why = "what a program keeps through execve without being root"
    keep: int

    def __str__(self) -> str:
        return f"ambient set: {set_names(self.keep)}"


class NoNewPrivs(Step):
    """PR_SET_NO_NEW_PRIVS."""

    why = "setuid programs and file capabilities give nothing, for ever"

    def __str__(self) -> str:
        return "set no_new_privs"


class Dumpable(Step):
    """PR_SET_DUMPABLE."""

    why = "so that a supervisor without privilege can read back what was set"
    value: int

    def __str__(self) -> str:
        return f"set dumpable {self.value}"


class Terminal(Step):
    """Open a pty of the container's devpts, send its master out, bind its slave to /dev/console."""

    why = "a terminal of its own: what is typed at the host's can't be faked from inside (TIOCSTI)"
    root: Slot
    to: Slot
    uid: int
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"open a terminal in the container for uid {self.uid}, as {self.to}"


class Stdio(Step):
    """dup3(2) onto 0, 1 and 2."""

    why = "the only descriptors of the supervisor that the program gets"
    stdin: Slot
    stdout: Slot
    stderr: Slot
    controlling: bool = False

    def __str__(self) -> str:
        end = ", as controlling terminal" if self.controlling else ""
        return f"stdin {self.stdin}, stdout {self.stdout}, stderr {self.stderr}{end}"


class OwnStdio(Step):
    """Make pipes for standard streams and send their other ends to the supervisor."""

    why = "so that the program can open /dev/stdout by name, whoever it runs as"
    uid: int
    which: int

    def __str__(self) -> str:
        names = [name for bit, name in enumerate(("stdin", "stdout", "stderr")) if self.which >> bit & 1]
        return f"make pipes for {', '.join(names)} that belong to uid {self.uid}"


class Seccomp(Step):
    """SECCOMP_SET_MODE_FILTER, seccomp(2)."""

    why = "last: what sets up needs calls that the program must not have"
    flags: int
    program: bytes

    def __str__(self) -> str:
        return f"load the filter of {len(self.program) // 8} instructions"


class WorkingDirectory(Step):
    """openat2 in the root, fchdir, getcwd."""

    why = "never through a magic link, and below the root (CVE-2024-21626)"
    path: str

    def __str__(self) -> str:
        return f"change to {self.path}"


class Ready(Step):
    """Report, and wait for the supervisor to compare.

    The descriptors of last steps that it sends go from `first` on.
    """

    first: int
    why = (
        "the supervisor reads ids, capabilities, maps, namespaces and mounts back from /proc; a difference ends it here"
    )

    def __str__(self) -> str:
        return "be compared with the Spec"


class Init(Step):
    """Fork; the parent stays as process 1, with the same filter."""

    why = "reaps orphans and forwards signals"
    flags: int
    program: bytes
    effective: int
    permitted: int
    inheritable: int

    def __str__(self) -> str:
        return "fork: this process stays as init, the child goes on"


class Execute(Step):
    """execve(2) of the first place where the program is."""

    why = "the program"
    places: tuple[str, ...]
    argv: tuple[str, ...]
    environment: tuple[str, ...]

    def encode(self) -> bytes:
        """Give the three lengths, then the three lists."""
        lists = (self.places, self.argv, self.environment)
        payload = b"".join([_word(len(words)) for words in lists])
        payload += b"".join([encode_value(word) for words in lists for word in words])
        return _head(self.op, len(payload)) + payload

    def __str__(self) -> str:
        return f"execute {' '.join(map(repr, self.argv))} with {len(self.environment)} variables"


class Loopback(Step):
    """SIOCSIFFLAGS: bring lo up, netdevice(7)."""

    why = "127.0.0.1 works in a network namespace of its own"

    def __str__(self) -> str:
        return "bring the loopback interface up"


class Idmap(Step):
    """mount_setattr(2) with MOUNT_ATTR_IDMAP and the new process's user namespace (Linux 5.12)."""

    why = "the files on disk belong to ids that the container doesn't have: their 0 becomes its 0"
    tree: Slot

    def __str__(self) -> str:
        return f"shift the ids of {self.tree} by the container's map"


#: in the order of launcher.c's OPS
OPERATIONS: tuple[type[Step], ...] = (
    Clone, Place, WriteMaps, WaitMaps, WaitSupervisor, CloseOthers, DeathSignal, SetIds,
    Unshare, Join, Propagation, Open, OpenIn, CloneTree, Filesystem, Attach, SetAttributes, WritableTop,
    Ensure, EnsureLike, RefuseLink, MakeNode, BindNode, MakeLink, Mask, ReadOnly, WriteFile, Pivot,
    Session, Keyring, Rlimit, Hostname, Domainname, Sysctl, OomScore, Umask, Bounding,
    Securebits, Capabilities, Ambient, NoNewPrivs, Dumpable, Terminal, Stdio, OwnStdio, Seccomp,
    WorkingDirectory, Ready, Init, Execute, Loopback, Idmap,
)  # fmt: skip
for _number, _operation in enumerate(OPERATIONS):
    _operation.op = _number

#: mount_setattr(2)
ATTRIBUTES = {
    "ro": 1,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
    "nosymfollow": 0x200000,
}
PROPAGATIONS = {1 << 17: "unbindable", 1 << 18: "private", 1 << 19: "slave", 1 << 20: "shared"}


def attribute_names(attributes: int) -> str:
    """Give the words of fstab for MOUNT_ATTR_ bits."""
    return " ".join([word for word, bit in ATTRIBUTES.items() if attributes & bit])


def set_names(mask: int) -> str:
    """Give a capability set as words: none, all, or the names."""
    from stockade.sandbox.linux import capabilities

    return " ".join(capabilities.names(mask)) or "none"
