"""What a container uses, in the form of `runc events --stats`: nanoseconds, bytes and counts.

The names, and which of them are left out when they are zero, are those of runc's types/events.go; engines parse them.
"""

from __future__ import annotations

import os

from stockade.sandbox import cgroup_tree
from stockade.sandbox.linux import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from stockade.sandbox.cgroup_group import Cgroup, Group

_UNLIMITED = (1 << 64) - 1
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # nanoseconds
_CPUSET = (
    ("cpu_exclusive", "cpuset.cpu_exclusive"),
    ("mem_hardwall", "cpuset.mem_hardwall"),
    ("mem_exclusive", "cpuset.mem_exclusive"),
    ("memory_migrate", "cpuset.memory_migrate"),
    ("memory_spread_page", "cpuset.memory_spread_page"),
    ("memory_spread_slab", "cpuset.memory_spread_slab"),
    ("memory_pressure", "cpuset.memory_pressure"),
    ("sched_load_balance", "cpuset.sched_load_balance"),
    ("sched_relax_domain_level", "cpuset.sched_relax_domain_level"),
)
_MEMORY_V1 = (
    ("usage", "memory"),
    ("swap", "memory.memsw"),
    ("kernel", "memory.kmem"),
    ("kernelTCP", "memory.kmem.tcp"),
)
_BLKIO_V1 = (
    ("ioServiceBytesRecursive", "io_service_bytes"),
    ("ioServicedRecursive", "io_serviced"),
    ("ioQueueRecursive", "io_queued"),
    ("ioServiceTimeRecursive", "io_service_time"),
    ("ioWaitTimeRecursive", "io_wait_time"),
    ("ioMergedRecursive", "io_merged"),
    ("ioTimeRecursive", "time"),
    ("sectorsRecursive", "sectors"),
)
_IO_V2 = (
    ("ioServiceBytesRecursive", "rbytes", "Read"),
    ("ioServiceBytesRecursive", "wbytes", "Write"),
    ("ioServiceBytesRecursive", "dbytes", "Discard"),
    ("ioServicedRecursive", "rios", "Read"),
    ("ioServicedRecursive", "wios", "Write"),
    ("ioServicedRecursive", "dios", "Discard"),
)


def read(cgroup: Cgroup) -> dict[str, Any]:
    """Give the `data` of a stats event. What no group here counts is zero or absent, as runc has it."""
    data: dict[str, Any] = {
        "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
        "cpuset": dict.fromkeys([name for name, _ in _CPUSET], 0),
        "memory": {name: {"limit": 0, "failcnt": 0} for name, _ in _MEMORY_V1},
        "pids": {},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }
    for group in cgroup.groups:
        if group.hierarchy.version == 2:
            _unified(group, data)
        else:
            for name in group.hierarchy.controllers:
                _controller(name, group, data)
    return data


def _controller(name: str, group: Group, data: dict[str, Any]) -> None:
    if name == "cpu":
        data["cpu"]["throttling"] = _throttling(group, "throttled_time", 1)
    elif name == "cpuacct":
        data["cpu"]["usage"] |= _usage_v1(group)
    elif name == "cpuset":
        data["cpuset"] = _cpuset(group)
    elif name == "memory":
        data["memory"] = _memory_v1(group)
    elif name == "pids":
        data["pids"] = _pids(group)
    elif name == "blkio":
        data["blkio"] = _blkio(group)
    elif name == "hugetlb":
        data["hugetlb"] = _hugetlb(group, ("usage_in_bytes", "max_usage_in_bytes", "failcnt"))


def _text(group: Group, file: str) -> str:
    try:
        return cgroup_tree.read(group.fd, file)
    except OSError:
        return ""


def _some(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Leave out what is zero, Go's `omitempty`."""
    return {name: value for name, value in pairs if value}


def _throttling(group: Group, time: str, scale: int) -> dict[str, int]:
    stat = group.flat("cpu.stat")
    return _some((
        ("periods", stat.get("nr_periods", 0)),
        ("throttledPeriods", stat.get("nr_throttled", 0)),
        ("throttledTime", stat.get(time, 0) * scale),
    ))  # fmt: skip


def _usage_v1(group: Group) -> dict[str, Any]:
    stat = group.flat("cpuacct.stat")
    rows = [line.split() for line in _text(group, "cpuacct.usage_all").splitlines()[1:]]  # cpu user system
    per_cpu = [int(word) for word in _text(group, "cpuacct.usage_percpu").split()]
    return _some((
        ("total", group.number("cpuacct.usage")),
        ("percpu", per_cpu),
        ("percpu_kernel", [int(row[2]) for row in rows if len(row) == 3]),
        ("percpu_user", [int(row[1]) for row in rows if len(row) == 3]),
    )) | {"kernel": stat.get("system", 0) * _TICK, "user": stat.get("user", 0) * _TICK}  # fmt: skip


def _cpuset(group: Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, file in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if numbers := cgroups.parse_list(_text(group, file)):
            found[name] = sorted(numbers)
    return found | {name: int(_text(group, file).strip() or 0) for name, file in _CPUSET}


def _memory_v1(group: Group) -> dict[str, Any]:
    stat = group.flat("memory.stat")
    found: dict[str, Any] = _some((("cache", stat.get("cache", 0)),))
    for name, prefix in _MEMORY_V1:
        limit, usage, peak, failures = (
            group.number(f"{prefix}.{file}") or 0
            for file in ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
        )
        found[name] = _entry(limit, usage, peak, failures)
    return found | {"raw": stat}


def _entry(limit: int, usage: int, peak: int, failures: int) -> dict[str, int]:
    return {"limit": limit, **_some((("usage", usage), ("max", peak))), "failcnt": failures}


def _pids(group: Group) -> dict[str, int]:
    return _some((("current", group.number("pids.current")), ("limit", group.number("pids.max"))))


def _blkio(group: Group) -> dict[str, Any]:
    """Read the files of whichever scheduler counts here: CFQ's, BFQ's, else those of the throttling layer."""
    for prefix in ("blkio.", "blkio.bfq.", "blkio.throttle."):
        found = _some((name, _block_entries(_text(group, f"{prefix}{file}_recursive"))) for name, file in _BLKIO_V1)
        if found:
            return found
    return {}


def _block_entries(text: str) -> list[dict[str, Any]]:
    """Read lines such as "8:0 Read 4096" or "8:0 4096"; the sum over devices has no number and is left out."""
    entries = []
    for line in text.splitlines():
        words = line.split()
        major, colon, minor = words[0].partition(":") if words else ("", "", "")
        if colon and words[-1].isdigit():
            operation = words[1] if len(words) == 3 else ""
            entries.append(_block_entry(major, minor, operation, int(words[-1])))
    return entries


def _block_entry(major: str, minor: str, operation: str, value: int) -> dict[str, Any]:
    return _some((("major", int(major)), ("minor", int(minor)), ("op", operation), ("value", value)))


def _hugetlb(group: Group, files: tuple[str, str, str]) -> dict[str, Any]:
    """Give usage, peak and failures by page size such as 2MB."""
    found: dict[str, Any] = {}
    for name in os.listdir(group.fd):
        if name.startswith("hugetlb.") and name.endswith(f".{files[0]}") and ".rsvd." not in name:
            size = name.split(".")[1]
            failures = group.number(f"hugetlb.{size}.{files[2]}")
            if failures is None:
                failures = group.flat(f"hugetlb.{size}.{files[2]}").get("max", 0)
            usage = (("usage", group.number(name)), ("max", group.number(f"hugetlb.{size}.{files[1]}")))
            found[size] = _some(usage) | {"failcnt": failures}
    return found


def _unified(group: Group, data: dict[str, Any]) -> None:
    """Read cgroup2; in the hybrid layout it has a controller or two, and v1 has the rest."""
    controllers = frozenset(_text(group, "cgroup.controllers").split())
    if "cpu" in controllers:
        data["cpu"] = _cpu_v2(group)
    if "cpuset" in controllers:
        for name in ("cpus", "mems"):
            if numbers := cgroups.parse_list(_text(group, f"cpuset.{name}.effective")):
                data["cpuset"][name] = sorted(numbers)
    if "memory" in controllers:
        data["memory"] = _memory_v2(group)
    if "pids" in controllers:
        data["pids"] = _pids(group)
    if "io" in controllers:
        data["blkio"] = _io(group)
    if "hugetlb" in controllers:
        data["hugetlb"] = _hugetlb(group, ("current", "peak", "events"))


def _cpu_v2(group: Group) -> dict[str, Any]:
    stat = group.flat("cpu.stat")
    usage = _some((("total", stat.get("usage_usec", 0) * 1000),))
    usage |= {"kernel": stat.get("system_usec", 0) * 1000, "user": stat.get("user_usec", 0) * 1000}
    found = {"usage": usage, "throttling": _throttling(group, "throttled_usec", 1000)}
    return found | _some((("psi", _pressure(group, "cpu.pressure")),))


def _memory_v2(group: Group) -> dict[str, Any]:
    """Give swap as v1 counts it, memory and swap together, as runc does."""
    stat = group.flat("memory.stat")
    limit, usage = _limit(group, "memory.max"), group.number("memory.current") or 0
    swap_limit, swap = _limit(group, "memory.swap.max"), group.number("memory.swap.current") or 0
    both = _UNLIMITED if _UNLIMITED in {limit, swap_limit} else limit + swap_limit
    failures = group.flat("memory.events").get("max", 0)
    return {
        **_some((("cache", stat.get("file", 0)),)),
        "usage": _entry(limit, usage, group.number("memory.peak") or 0, failures),
        "swap": _entry(both, usage + swap, 0, 0),
        "kernel": _entry(0, stat.get("kernel", 0), 0, 0),
        "kernelTCP": _entry(0, stat.get("sock", 0), 0, 0),
        "raw": stat,
        **_some((("psi", _pressure(group, "memory.pressure")),)),
    }


def _limit(group: Group, file: str) -> int:
    number = group.number(file)
    return _UNLIMITED if number is None else number


def _pressure(group: Group, file: str) -> dict[str, Any]:
    """Read pressure stall information, lines such as "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"."""
    found: dict[str, Any] = {}
    for line in _text(group, file).splitlines():
        name, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        found[name] = {key: int(value) if key == "total" else float(value) for key, value in values.items()}
    return found


def _io(group: Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in _text(group, "io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for name, key, operation in _IO_V2:
            if values.get(key, "").isdigit():
                found.setdefault(name, []).append(_block_entry(major, minor, operation, int(values[key])))
    return found | _some((("psi", _pressure(group, "io.pressure")),))
