"""What was asked of `stockade run`, before any mode, host or policy is consulted.

A `Request` holds values only: sizes are bytes, times are seconds, names are normalised, files that an option names are
read. `None` always means "not asked": the mode decides. An empty tuple in one of the five capability sets means "asked
to be empty". Both the command line and the Python API make Requests; `build` alone reads them.
"""

from __future__ import annotations

from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.linux.idmap import Mapping


class MountRequest(Record):
    """One mount (-v, --mount, --tmpfs).

    `type` is bind, tmpfs or mqueue. `source` is an absolute host path for bind, else the type. `destination` is an
    absolute path in the container. `options` are mount(8) options as given, without ro, rw and the propagation: noexec,
    nosuid, size=N, mode=OCTAL … (sizes in bytes). `propagation` is r?private, r?slave, r?shared, r?unbindable or empty
    for the mode's choice. `recursive` is false where submounts of the source shall not come along.
    """

    type: str
    source: str
    destination: str
    read_only: bool = False
    options: tuple[str, ...] = ()
    propagation: str = ""
    recursive: bool = True


class DeviceRequest(Record):
    """One device node (--device): host path, path in the container, and letters of `rwm` that it may be used for."""

    source: str
    destination: str
    permissions: str = "rwm"


class UlimitRequest(Record):
    """One resource limit (--ulimit): the name as in `nofile`; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class Request(Record):
    """All that `stockade run` can be asked for.

    The root is either `rootfs` (an absolute directory of the host) or, with `host_root`, the host's own programs
    read-only. `user` is `UID|NAME[:GID|NAME]` as given: names are of the container's /etc/passwd. `cap_*` hold `CAP_…`
    names or `ALL`. `network` is none or host; `pid`, `ipc`, `uts` and `cgroupns` are private or host. `userns` is
    host, auto, keep-id or nomap. `seccomp` is unconfined, default or the absolute path of a profile. `systempaths` is
    unconfined or None. `memory_swap` of -1 is unlimited. `cpus` are processors, `timeout` seconds until the whole tree
    is killed. `stop_signal` is a number. `best_effort` lets limits go that this host can't enforce. `show` is spec or
    plan: print that instead of running. `json` asks for a report of what was enforced.
    """

    argv: tuple[str, ...]
    mode: str | None = None
    rootfs: str | None = None
    host_root: bool = False

    user: str | None = None
    workdir: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    hostname: str | None = None
    domainname: str | None = None
    read_only: bool | None = None
    tmpfs: tuple[MountRequest, ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    ulimits: tuple[UlimitRequest, ...] = ()
    shm_size: int | None = None
    devices: tuple[DeviceRequest, ...] = ()

    network: str | None = None
    pid: str | None = None
    ipc: str | None = None
    uts: str | None = None
    cgroupns: str | None = None

    name: str | None = None
    remove: bool = False
    interactive: bool = False
    tty: bool = False
    init: bool | None = None
    stop_signal: int | None = None
    timeout: float | None = None
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cap_bounding: tuple[str, ...] | None = None
    cap_effective: tuple[str, ...] | None = None
    cap_permitted: tuple[str, ...] | None = None
    cap_inheritable: tuple[str, ...] | None = None
    cap_ambient: tuple[str, ...] | None = None
    uidmap: tuple[Mapping, ...] = ()
    gidmap: tuple[Mapping, ...] = ()
    userns: str | None = None
    seccomp: str | None = None
    no_new_privileges: bool | None = None
    systempaths: str | None = None

    memory: int | None = None
    memory_swap: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    pids_limit: int | None = None
    best_effort: bool = False

    json: bool = False
    show: str | None = None
