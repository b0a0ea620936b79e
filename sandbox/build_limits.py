"""The limits of a container: what cgroups enforce and what setrlimit(2) does. Pure."""

from __future__ import annotations

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.oci import spec as oci

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.host import Host
    from stockade.sandbox.modes import Mode
    from stockade.sandbox.request import Request

#: RLIM_INFINITY
UNLIMITED = (1 << 64) - 1
#: of a CFS period; sched-bwc in the kernel's documentation
CPU_PERIOD = 100_000
_CPU_QUOTA_MINIMUM = 1_000

_ULIMITS = frozenset({
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
})  # fmt: skip


def resources(request: Request, mode: Mode, devices: tuple[oci.LinuxDeviceCgroup, ...]) -> oci.LinuxResources | None:
    """Give what the cgroup has to enforce, or None where nothing was asked. Raises UsageError for impossible values."""
    limits = mode.limits
    memory = _first(request.memory, limits.memory)
    swap = _first(request.memory_swap, limits.memory_swap if request.memory is None else None)
    cpus = request.cpus if request.cpus is not None else limits.cpus
    shares = _first(request.cpu_shares, limits.cpu_shares)
    cpuset = request.cpuset_cpus or limits.cpuset_cpus or ""
    pids = _first(request.pids_limit, limits.pids)
    if swap is not None and memory is None:
        raise UsageError("--memory-swap is memory and swap together and needs --memory", hint="give --memory too")
    if swap is not None and memory is not None and 0 <= swap < memory:
        raise UsageError(
            f"--memory-swap {swap} is memory and swap together, less than --memory {memory}", hint="give more"
        )
    found = oci.LinuxResources(
        devices=devices,
        memory=oci.LinuxMemory(limit=memory, swap=swap) if memory else None,
        cpu=_cpu(cpus, shares, cpuset),
        pids=oci.LinuxPids(pids) if pids is not None and pids > 0 else None,
    )
    return None if found == oci.LinuxResources() else found


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _cpu(cpus: float | None, shares: int | None, cpuset: str) -> oci.LinuxCPU | None:
    quota = period = None
    if cpus:
        quota, period = round(cpus * CPU_PERIOD), CPU_PERIOD
        if quota < _CPU_QUOTA_MINIMUM:
            raise UsageError(f"--cpus {cpus}: the kernel gives no less than 0.01", hint="give 0.01 or more")
    found = oci.LinuxCPU(shares=shares or None, quota=quota, period=period, cpus=cpuset)
    return None if found == oci.LinuxCPU() else found


def rlimits(request: Request, mode: Mode, host: Host) -> tuple[oci.POSIXRlimit, ...]:
    """Give the resource limits; those of the request replace the mode's of the same name."""
    asked = {name: (soft, hard) for name, soft, hard in mode.limits.ulimits}
    asked |= {limit.name: (limit.soft, limit.hard) for limit in request.ulimits}
    return tuple([_rlimit(name, soft, hard, host) for name, (soft, hard) in asked.items()])


def _rlimit(name: str, soft: int, hard: int, host: Host) -> oci.POSIXRlimit:
    if name not in _ULIMITS:
        raise UsageError(f"ulimit {name}: unknown", hint=f"known are {' '.join(sorted(_ULIMITS))}")
    low, high = (UNLIMITED if value < 0 else value for value in (soft, hard))
    if low > high:
        raise UsageError(f"ulimit {name}: the soft limit {soft} is above the hard limit {hard}", hint="give SOFT:HARD")
    current = host.rlimits.get(name, (-1, -1))[1]
    if current >= 0 and high > current and not host.holds("CAP_SYS_RESOURCE"):
        wanted = "unlimited" if hard < 0 else str(hard)
        raise StockadeError(
            f"ulimit {name}: {wanted} is above the caller's hard limit {current}, and CAP_SYS_RESOURCE is missing",
            hint=f"ask for {current} or less, or raise it where Stockade is started",
        )
    return oci.POSIXRlimit("RLIMIT_" + name.upper(), high, low)
