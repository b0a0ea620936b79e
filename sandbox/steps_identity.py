"""Steps about who the program is: ids, capabilities, limits, names, the filter."""

from __future__ import annotations

from stockade.sandbox.steps_base import Step, head, set_names, word


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
        return head(self.op, 24) + word(self.resource) + word(self.soft) + word(self.hard)

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

    why = "1 so that a supervisor without privilege can read it back; else 0: nobody traces it before it has its filter"
    value: int

    def __str__(self) -> str:
        return f"set dumpable {self.value}"


class Seccomp(Step):
    """SECCOMP_SET_MODE_FILTER, seccomp(2)."""

    why = "last: what sets up needs calls that the program must not have"
    flags: int
    program: bytes

    def __str__(self) -> str:
        return f"load the filter of {len(self.program) // 8} instructions"


class Loopback(Step):
    """SIOCSIFFLAGS: bring lo up, netdevice(7)."""

    why = "127.0.0.1 works in a network namespace of its own"

    def __str__(self) -> str:
        return "bring the loopback interface up"
