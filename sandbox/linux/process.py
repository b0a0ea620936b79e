"""What the kernel says about one process, /proc/PID in proc(5).

Pure `parse_…` functions take the text, thin readers take the pid ("self" and "12/task/13" too). Readers raise
ProcessLookupError when the process has gone and PermissionError where ptrace(2) access is needed and refused.
"""

from __future__ import annotations

import os

from stockade.sandbox.linux import capabilities, procfs
from stockade.sandbox.linux.record import Record


class Status(Record):
    """/proc/PID/status. Ids are those of the reader's namespace: real, effective, saved, file system.

    `pids` are the pids of the process from the reader's pid namespace down to its own. `no_new_privs`, `seccomp` (0
    none, 1 strict, 2 filter) and `seccomp_filters` are None where the kernel does not say (gVisor): unknown, not 0.
    """

    name: str
    state: str
    tgid: int
    pid: int
    ppid: int
    tracer: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    pids: tuple[int, ...]
    sessions: tuple[int, ...]
    threads: int
    umask: int | None
    caps: capabilities.Sets
    no_new_privs: bool | None
    seccomp: int | None
    seccomp_filters: int | None


class Descriptor(Record):
    """One open descriptor, /proc/PID/fd/N and fdinfo/N: `flags` as in open(2), `mount` as in mountinfo."""

    number: int
    target: str
    position: int
    flags: int
    mount: int | None
    inode: int | None


class CgroupLine(Record):
    """One line of /proc/PID/cgroup. `hierarchy` 0 is the unified one of version 2, which has no `controllers`."""

    hierarchy: int
    controllers: tuple[str, ...]
    path: str


#: soft and hard limit; None is unlimited
Limit = tuple["int | None", "int | None"]


def parse_status(text: str) -> Status:
    """Read the text of /proc/PID/status. Raises ValueError when a field that every kernel has is missing."""
    # About 60 lines; one dictionary from one split is the quickest that pure Python can do.
    fields = dict([line.split(":\t", 1) for line in text.split("\n") if ":\t" in line])
    try:
        tgid = fields["Tgid"]
        return Status(
            name=_unescape_name(fields["Name"]),
            state=fields["State"][:1],
            tgid=int(tgid),
            pid=int(fields["Pid"]),
            ppid=int(fields["PPid"]),
            tracer=int(fields["TracerPid"]),
            uids=tuple(map(int, fields["Uid"].split())),
            gids=tuple(map(int, fields["Gid"].split())),
            groups=tuple(map(int, fields["Groups"].split())),
            pids=tuple(map(int, fields.get("NSpid", tgid).split())),
            sessions=tuple(map(int, fields.get("NSsid", "").split())),
            threads=int(fields["Threads"]),
            umask=int(fields["Umask"], 8) if "Umask" in fields else None,
            caps=capabilities.from_fields(fields),
            no_new_privs=fields["NoNewPrivs"] == "1" if "NoNewPrivs" in fields else None,
            seccomp=_optional(fields, "Seccomp"),
            seccomp_filters=_optional(fields, "Seccomp_filters"),
        )
    except KeyError as missing:
        raise ValueError(f"no {missing.args[0]} in the process status") from None


def _optional(fields: dict[str, str], key: str) -> int | None:
    value = fields.get(key)
    return None if value is None else int(value)


def _unescape_name(name: str) -> str:
    # A process chooses its name; status escapes newline and backslash in it so that no field can be forged.
    return name.replace("\\n", "\n").replace("\\\\", "\\") if "\\" in name else name


def status(pid: int | str) -> Status:
    """Read /proc/PID/status."""
    return parse_status(procfs.read_text(pid, "status"))


def strings(data: bytes) -> tuple[str, ...]:
    """Split the NUL-terminated strings of cmdline and environ."""
    if not data:
        return ()
    # A process that wrote over its arguments may have taken the last NUL with it.
    return tuple(data.removesuffix(b"\0").decode("utf-8", "surrogateescape").split("\0"))


def cmdline(pid: int | str) -> tuple[str, ...]:
    """Read the arguments; empty for kernel threads and zombies. The process can have changed them."""
    return strings(procfs.read(pid, "cmdline"))


def environ(pid: int | str) -> tuple[str, ...]:
    """Read the environment as it was at execve, NAME=VALUE each: full of secrets, so never log it.

    Empty for kernel threads and zombies, which have no memory.
    """
    try:
        return strings(procfs.read(pid, "environ"))
    except ProcessLookupError:
        # The kernel says ESRCH for a process without memory, too.
        if os.path.lexists(f"{procfs.PROC}/{pid}"):
            return ()
        raise


def exe(pid: int | str) -> str:
    """Give the program's path, " (deleted)" after a removed one. FileNotFoundError for kernel threads and zombies."""
    return procfs.link(pid, "exe")


def cwd(pid: int | str) -> str:
    """Give the working directory as seen from the reader's root; "(unreachable)…" when it lies outside."""
    return procfs.link(pid, "cwd")


def root(pid: int | str) -> str:
    """Give the root directory of the process as its own mount namespace names it: "/" after a pivot_root."""
    return procfs.link(pid, "root")


def fds(pid: int | str) -> dict[int, str]:
    """Give the open descriptors and what they are: a path, "pipe:[1]", "socket:[2]", "anon_inode:…"."""
    found = {}
    for name in procfs.names(pid, "fd"):
        try:
            found[int(name)] = os.readlink(f"{procfs.PROC}/{pid}/fd/{name}")
        except FileNotFoundError:
            continue  # closed since the listing
    return found


def parse_fdinfo(text: str) -> dict[str, str]:
    """Read the text of /proc/PID/fdinfo/N: pos, flags (octal), mnt_id, ino, and what the kind of file adds."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def fdinfo(pid: int | str, number: int) -> Descriptor:
    """Read one descriptor of a process. FileNotFoundError when it is not open."""
    target = procfs.link(pid, f"fd/{number}")
    fields = parse_fdinfo(procfs.read_text(pid, f"fdinfo/{number}"))
    return Descriptor(
        number,
        target,
        int(fields.get("pos", "0")),
        int(fields.get("flags", "0"), 8),
        _optional(fields, "mnt_id"),
        _optional(fields, "ino"),
    )


def descriptors(pid: int | str) -> tuple[Descriptor, ...]:
    """Read all descriptors of a process in the order of their numbers; those that close meanwhile are left out."""
    found = []
    for number in sorted(map(int, procfs.names(pid, "fd"))):
        try:
            found.append(fdinfo(pid, number))
        except FileNotFoundError:
            continue
    return tuple(found)


def parse_limits(text: str) -> dict[str, Limit]:
    """Read the text of /proc/PID/limits: "Max open files" → (1024, 4096), with None for unlimited."""
    found: dict[str, Limit] = {}
    header, *lines = text.split("\n")
    soft_at, hard_at, units_at = header.find("Soft Limit"), header.find("Hard Limit"), header.find("Units")
    if min(soft_at, hard_at, units_at) < 0:
        raise ValueError("not the text of /proc/PID/limits")
    for line in lines:
        if line:
            soft, hard = line[soft_at:hard_at].strip(), line[hard_at:units_at].strip()
            found[line[:soft_at].strip()] = (_limit(soft), _limit(hard))
    return found


def _limit(text: str) -> int | None:
    return None if text == "unlimited" else int(text)


def limits(pid: int | str) -> dict[str, Limit]:
    """Read the resource limits of a process under the kernel's names for them."""
    return parse_limits(procfs.read_text(pid, "limits"))


def parse_cgroup(text: str) -> tuple[CgroupLine, ...]:
    """Read the text of /proc/PID/cgroup, HIERARCHY:CONTROLLERS:PATH a line; the path may hold colons.

    The kernel does not escape the path and refuses newlines in it; " (deleted)" follows a removed one.
    """
    lines = []
    for line in text.split("\n"):
        if line:
            hierarchy, controllers, path = line.split(":", 2)
            lines.append(CgroupLine(int(hierarchy), tuple(filter(None, controllers.split(","))), path))
    return tuple(lines)


def cgroup(pid: int | str) -> tuple[CgroupLine, ...]:
    """Read the cgroups of a process; paths are relative to the reader's cgroup namespace, "/../x" above its root."""
    return parse_cgroup(procfs.read_text(pid, "cgroup"))


def parse_start_time(stat: str) -> int:
    """Give field 22 of /proc/PID/stat, clock ticks since boot. The name, field 2, may hold blanks and brackets."""
    return int(stat.rpartition(")")[2].split()[19])


def start_time(pid: int | str) -> int:
    """Give the start of a process in clock ticks since boot: (pid, start time) names a process for ever."""
    return parse_start_time(procfs.read_text(pid, "stat"))


def lsm_label(pid: int | str) -> str | None:
    """Give the AppArmor profile or SELinux context, or None where no such module labels processes."""
    for name in ("attr/apparmor/current", "attr/current"):
        try:
            label = procfs.read_text(pid, name).rstrip("\0\n")
        except (FileNotFoundError, PermissionError):
            continue
        except OSError as error:
            # EINVAL: the file is there and no module answers
            if isinstance(error, ProcessLookupError):
                raise
            continue
        if label:
            return label
    return None


def threads(pid: int | str) -> tuple[int, ...]:
    """Give the thread ids of a process, lowest first."""
    return tuple(sorted(map(int, procfs.names(pid, "task"))))


def list_pids() -> tuple[int, ...]:
    """Give all processes that this /proc shows, lowest first."""
    return tuple(sorted([int(name) for name in os.listdir(procfs.PROC) if name.isdigit()]))
