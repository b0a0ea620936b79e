"""Limits: what one container can take away from the others and from the host."""

from collections.abc import Iterator

from stockade.audit.facts import CgroupLimit, CgroupMembership, Host, Mount, OomScoreAdj, ResourceLimit
from stockade.audit.report import Severity
from stockade.audit.rule import CannotTell, Found, Outcome, rule, said, seen

_T1499 = "https://attack.mitre.org/techniques/T1499/"
_CGROUP = "https://docs.kernel.org/admin-guide/cgroup-v2.html"


def _unlimited(limits: tuple[CgroupLimit, ...], name: str, title: str, condition: str) -> Iterator[Outcome]:
    found = next((limit for limit in limits if limit.name == name), None)
    if found is None:
        yield CannotTell(f"the limit on {name} is not known")
    elif found.value is None:
        line = said(found, f"no limit on {name}, here or in any cgroup above", f"no limit on {name} is declared")
        yield Found(title, found.where, (line,), conditions=(condition,), key=name)


@rule(Severity.MEDIUM, _T1499, _CGROUP, conditions=("RES-PIDS",), cis=("5.29",), attack=("T1499",), cwe=(770,))
def process_limit(limits: tuple[CgroupLimit, ...]) -> Iterator[Outcome]:
    """The number of processes has no limit.

    A fork bomb in the container takes every process id of the host, and then nobody can log in to end it.

    Fix: set a limit (--pids-limit 512).

    ```toml bad
    [[CgroupLimit]]
    name = "pids"
    value = "max"
    ```

    ```toml good
    [[CgroupLimit]]
    name = "pids"
    value = 512
    ```
    """
    yield from _unlimited(limits, "pids", "the number of processes has no limit", "RES-PIDS")


@rule(
    Severity.LOW,
    _T1499,
    _CGROUP,
    conditions=("RES-MEM", "RES-SWAP"),
    covers=("unbounded_tmpfs",),
    cis=("5.11",),
    attack=("T1499",),
    cwe=(770,),
)
def memory_limit(limits: tuple[CgroupLimit, ...]) -> Iterator[Outcome]:
    """The memory has no limit.

    The container can use up the host's memory, and the kernel may end other programs than the one that did.

    Fix: set a limit on memory (--memory 512m) and on memory and swap together (--memory-swap).

    ```toml bad
    [[CgroupLimit]]
    name = "memory"
    value = "max"
    ```

    ```toml good
    [[CgroupLimit]]
    name = "memory"
    value = 268435456
    ```
    """
    yield from _unlimited(limits, "memory", "the memory has no limit", "RES-MEM")


@rule(Severity.LOW, _T1499, _CGROUP, conditions=("RES-CPU",), cis=("5.12",), attack=("T1499", "T1496"), cwe=(770,))
def processor_limit(limits: tuple[CgroupLimit, ...]) -> Iterator[Outcome]:
    """The processor time has no limit.

    A busy loop takes every processor that the others leave over; latency of the neighbours suffers.

    Fix: set a limit (--cpus 1).

    ```toml bad
    [[CgroupLimit]]
    name = "cpu"
    value = "max"
    ```

    ```toml good
    [[CgroupLimit]]
    name = "cpu"
    value = 1000
    ```
    """
    yield from _unlimited(limits, "cpu", "the processor time has no limit", "RES-CPU")


@rule(
    Severity.LOW,
    "https://docs.kernel.org/filesystems/tmpfs.html",
    conditions=("RES-TMPFS", "RES-SHM"),
    attack=("T1499",),
    cwe=(770,),
)
def unbounded_tmpfs(mount: Mount, limits: tuple[CgroupLimit, ...] | None) -> Iterator[Outcome]:
    """A tmpfs has no size.

    Files on it are memory. Without size= it may grow to half of the host's.

    Severity: none where the memory of the container is limited.

    Fix: give it a size (--tmpfs /run:size=64m), or limit the memory.

    ```toml bad
    absent = ["CgroupLimit"]

    [[Mount]]
    destination = "/run"
    fstype = "tmpfs"
    writable = true
    options = ["rw", "nosuid", "nodev"]
    super_options = ["rw"]
    ```

    ```toml good
    [[Mount]]
    destination = "/run"
    fstype = "tmpfs"
    writable = true
    options = ["rw", "nosuid", "nodev"]
    super_options = ["rw", "size=65536k"]
    ```
    """
    if mount.fstype != "tmpfs" or not mount.writable or mount.host_path is not None:
        return
    if any(limit.name == "memory" and limit.value is not None for limit in limits or ()):
        return
    if not any(option.startswith(("size=", "nr_blocks=")) for option in mount.super_options):
        title = f"the tmpfs at {mount.destination} has no size"
        yield Found(title, mount.where, (seen(mount, f"{mount.destination} tmpfs without size="),))


@rule(
    Severity.MEDIUM,
    "https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html",
    conditions=("RES-OOM",),
    attack=("T1499",),
    cwe=(770,),
)
def oom_protected(score: OomScoreAdj) -> Iterator[Outcome]:
    """The kernel ends other programs before this container.

    A negative oom_score_adj makes the host's services die first when memory runs out, whoever used it up.

    Fix: leave out --oom-score-adj and --oom-kill-disable.

    ```toml bad
    [OomScoreAdj]
    value = -500
    ```

    ```toml good
    [OomScoreAdj]
    value = 0
    ```
    """
    if score.value < 0:
        title = "the kernel ends other programs before this container"
        yield Found(title, score.where, (seen(score, f"oom_score_adj {score.value}"),))


@rule(
    Severity.LOW,
    "https://man7.org/linux/man-pages/man2/getrlimit.2.html",
    conditions=("RES-ULIMIT",),
    cis=("5.19",),
    attack=("T1499",),
    cwe=(770,),
)
def descriptor_limit(limit: ResourceLimit) -> Iterator[Outcome]:
    """The number of open files has no limit.

    Open files, pipes and sockets are kernel memory of the whole host.

    Fix: set --ulimit nofile=1024:4096 or what the program needs.

    ```toml bad
    [[ResourceLimit]]
    name = "nofile"
    soft = 1073741816
    hard = 1073741816
    ```

    ```toml good
    [[ResourceLimit]]
    name = "nofile"
    soft = 1024
    hard = 1048576
    ```
    """
    # 1048576 is fs.nr_open's default and what engines have set for years; systemd raises it to 2**30
    if limit.name == "nofile" and (limit.hard is None or limit.hard > 1048576):
        title = "the number of open files has no practical limit"
        yield Found(title, limit.where, (seen(limit, f"nofile hard limit {limit.hard or 'unlimited'}"),))


@rule(
    Severity.LOW,
    "https://www.cisecurity.org/benchmark/docker",
    conditions=("RES-CGPARENT",),
    cis=("5.25",),
    attack=("T1499",),
    cwe=(770,),
)
def host_cgroup(cgroup: CgroupMembership) -> Iterator[Outcome]:
    """The container has no cgroup of its own.

    It shares the limits and the accounting of processes of the host, and can't be ended as a whole.

    Fix: give it a cgroup (leave out --cgroup-parent and --cgroups disabled; rootless engines need delegation).

    ```toml bad
    [CgroupMembership]
    path = "/system.slice/ssh.service"
    shared_with_host = true
    ```

    ```toml good
    [CgroupMembership]
    path = "/docker/4f5b"
    shared_with_host = false
    ```
    """
    if cgroup.shared_with_host is None:
        yield CannotTell("whether processes of the host share the cgroup is not known", cgroup.where)
    elif cgroup.shared_with_host:
        title = "the container shares a cgroup with processes of the host"
        yield Found(title, cgroup.where, (seen(cgroup, f"cgroup {cgroup.path}"),))


@rule(Severity.INFO, _CGROUP, conditions=("RES-CGV1",), scope="host", cwe=(1104,))
def old_cgroups(host: Host) -> Iterator[Outcome]:
    """The host uses cgroup v1.

    It has release_agent and devices.allow, which cgroup v2 has not; unprivileged users can't be given limits of
    their own.

    Fix: boot with systemd.unified_cgroup_hierarchy=1.

    ```toml bad
    [Host]
    cgroup = "v1"
    ```

    ```toml good
    [Host]
    cgroup = "v2"
    ```
    """
    if host.cgroup is None:
        yield CannotTell("the version of cgroups is not known", host.where)
    elif host.cgroup == "v1":
        yield Found("the host uses cgroup v1", host.where, ("the controllers are mounted as cgroup v1",))
