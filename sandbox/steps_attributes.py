"""Steps about attributes beside ids and capabilities: those set from outside, and those that go through procfs."""

from __future__ import annotations

from stockade.sandbox.steps_base import Step, encode_value, head, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.steps_base import Slot


class OomScore(Step):
    """Write oom_score_adj of the new process where it is another, proc(5)."""

    why = "set from outside: lowering it needs CAP_SYS_RESOURCE of the host"
    value: str

    def __str__(self) -> str:
        return f"set oom_score_adj to {self.value}"


class RlimitRoom(Step):
    """prlimit(2): raise the hard limit of the new process where it is lower than this."""

    why = "set from outside: raising it needs CAP_SYS_RESOURCE of the host"
    resource: int
    hard: int
    name: str

    def encode(self) -> bytes:
        """Give the two numbers; `name` is for readers."""
        return head(self.op, 16) + word(self.resource) + word(self.hard)

    def __str__(self) -> str:
        return f"make room for limit {self.name} up to {self.hard}"


class Scheduler(Step):
    """sched_setattr(2); times in nanoseconds."""

    why = "set from outside: another policy than the default needs CAP_SYS_NICE of the host"
    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int
    name: str

    def encode(self) -> bytes:
        """Give the seven numbers; `name` is for readers."""
        numbers = (self.policy, self.flags, self.nice, self.priority, self.runtime, self.deadline, self.period)
        return head(self.op, 8 * len(numbers)) + b"".join([encode_value(number) for number in numbers])

    def __str__(self) -> str:
        times = f", {self.runtime} of {self.deadline} ns each {self.period}" if self.runtime else ""
        return f"schedule by {self.name}, nice {self.nice}, priority {self.priority}{times}"


class IoPriority(Step):
    """ioprio_set(2)."""

    why = "set from outside: the real-time class needs CAP_SYS_ADMIN of the host"
    value: int

    def __str__(self) -> str:
        kind = ("none", "real-time", "best-effort", "idle")[self.value >> 13 & 3]
        return f"I/O priority {kind} {self.value & 7}"


class Affinity(Step):
    """sched_setaffinity(2); bit n of the mask is processor n."""

    why = "which processors it may run on, before or after it moves to the container's cgroup"
    mask: bytes
    names: str

    def encode(self) -> bytes:
        """Give the mask; `names` is for readers."""
        payload = encode_value(self.mask)
        return head(self.op, len(payload)) + payload

    def __str__(self) -> str:
        return f"run on processors {self.names}"


class HostProc(Step):
    """Open the host's procfs, and make sure that it is one."""

    why = "before another mount namespace is entered: a root file system can bring anything as /proc (CVE-2019-16884)"
    to: Slot

    def __str__(self) -> str:
        return f"open /proc as {self.to}"


class PidsProc(Step):
    """Mount a procfs nowhere, with the processes of the PID namespace that was joined and nothing else in it."""

    why = "who may ptrace(2) in the container reaches what its newest process has open: nothing of the host's /proc"
    to: Slot

    def __str__(self) -> str:
        return f"make a procfs of the joined PID namespace, with its processes alone, as {self.to}"


class Sysctl(Step):
    """Write a file of /proc/sys; which namespace it is of, the kernel finds by who opens it."""

    why = "in the namespaces that the process has by now"
    proc: Slot
    path: str
    value: bytes

    def __str__(self) -> str:
        return f"write {self.value.decode('utf-8', 'replace')} to /proc/{self.path}"


class TimeOffsets(Step):
    """unshare(2), /proc/self/timens_offsets, setns(2): time_namespaces(7)."""

    why = "offsets can be written only while nobody is in the time namespace"
    proc: Slot
    offsets: str

    def __str__(self) -> str:
        return f"enter a new time namespace with offsets {self.offsets.strip().replace(chr(10), ', ')}"


class Label(Step):
    """Write the label for execve(2) to the first of these files of procfs that exists."""

    why = "the security module confines the program from its first instruction"
    proc: Slot
    value: bytes
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"label the program: {self.value.decode('utf-8', 'replace')}"


class Close(Step):
    """close(2)."""

    why = "nothing of the host stays open"
    slot: Slot

    def __str__(self) -> str:
        return f"close {self.slot}"


class Personality(Step):
    """personality(2)."""

    why = "as asked for"
    persona: int

    def __str__(self) -> str:
        return f"personality {self.persona:#x}"


class MemoryPolicy(Step):
    """set_mempolicy(2); bit n of the mask is memory node n."""

    why = "as asked for"
    mode: int
    nodes: bytes
    name: str

    def encode(self) -> bytes:
        """Give mode and mask; `name` is for readers."""
        payload = word(self.mode) + encode_value(self.nodes)
        return head(self.op, len(payload)) + payload

    def __str__(self) -> str:
        return f"memory policy {self.name}"
