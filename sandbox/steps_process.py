"""Steps about the process itself: its making, its streams, its hand-shake, its execution."""

from __future__ import annotations

from stockade.sandbox.steps_base import NONE, Step, encode_value, head, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.steps_base import Slot


class Clone(Step):
    """Make the process with its namespaces, clone(2); in the cgroup of a slot where there is one (cgroup v2)."""

    why = "a child of the supervisor, with namespaces of its own from its first instruction"
    flags: int
    names: str
    cgroup: int = NONE.number

    def encode(self) -> bytes:
        """Give the flags and the slot; `names` is for readers."""
        payload = word(self.flags) + word(self.cgroup)
        return head(self.op, len(payload)) + payload

    def __str__(self) -> str:
        return f"clone a child with new namespaces: {self.names or 'none'}"


class Place(Step):
    """Write the pid into a cgroup.procs file, cgroups(7)."""

    why = "limits hold before the first instruction of the program"
    procs: Slot

    def __str__(self) -> str:
        return f"put the child into the cgroup {self.procs}"


class Guard(Step):
    """Keep the directory of a control group in the launcher, which kills all in it when the first process has ended."""

    why = "without a PID namespace the end of the first process, or of the supervisor, is not the end of the others"
    directory: Slot

    def __str__(self) -> str:
        return f"guard the cgroup {self.directory}"


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


class Unshare(Step):
    """unshare(2)."""

    why = "the root of a cgroup namespace is where its creator is: after the process was placed"
    flags: int
    names: str

    def encode(self) -> bytes:
        """Give the flags; `names` is for readers."""
        return head(self.op, 8) + word(self.flags)

    def __str__(self) -> str:
        return f"unshare {self.names}"


class Join(Step):
    """setns(2) with a namespace descriptor."""

    why = "a namespace that was named by path"
    namespace: Slot
    flag: int

    def __str__(self) -> str:
        return f"join {self.namespace}"


class JoinFirst(Step):
    """setns(2) by the launcher, before it clones: a PID namespace is joined by children only, pid_namespaces(7)."""

    why = "the process is a member from its first instruction, and what it makes new belongs there"
    namespace: Slot
    flag: int

    def __str__(self) -> str:
        return f"join {self.namespace} before the clone"


class Hold(Step):
    """Report and wait for the supervisor's word."""

    why = "hooks run now: the namespaces are made, the root is still the host's (runtime-spec, createRuntime)"

    def __str__(self) -> str:
        return "wait until the supervisor has run its hooks"


class Find(Step):
    """faccessat(2) of the places where the program may be."""

    why = "what can't be executed is said by `create`, not by `start`"
    places: tuple[str, ...]
    program: str

    def encode(self) -> bytes:
        """Give the places; `program` is for readers."""
        payload = encode_value(self.places)
        return head(self.op, len(payload)) + payload

    def __str__(self) -> str:
        return f"look for {self.program!r}"


class WaitStart(Step):
    """Let `create` go and accept(2) a connection of `start`."""

    why = "OCI's state created: everything is set up, the program starts on request"
    listener: Slot

    def __str__(self) -> str:
        return "wait for start"


class Preserve(Step):
    """dup2(2) of descriptors that the caller passes on, to 3 and up."""

    why = "the caller asked for it: socket activation, --preserve-fds"
    first: Slot
    count: int

    def __str__(self) -> str:
        return f"pass {self.count} descriptors on from 3"


class Terminal(Step):
    """Open a pty of the container's devpts, send its master out, with `console` bind its slave to /dev/console."""

    why = "a terminal of its own: what is typed at the host's can't be faked from inside (TIOCSTI)"
    dev: Slot
    to: Slot
    uid: int
    rows: int
    columns: int
    console: int = 1

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
        payload = b"".join([word(len(words)) for words in lists])
        payload += b"".join([encode_value(word) for words in lists for word in words])
        return head(self.op, len(payload)) + payload

    def __str__(self) -> str:
        return f"execute {' '.join(map(repr, self.argv))} with {len(self.environment)} variables"
