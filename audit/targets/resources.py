"""What limits a process: its cgroups up the tree, the device policy, rlimits, the OOM killer's preference."""

from collections.abc import Iterator
from typing import Literal

from stockade.audit import facts
from stockade.audit.facts import Where
from stockade.audit.probe import Device
from stockade.audit.targets.host import HostView
from stockade.sandbox.linux import cgroup_devices, cgroups, process, procfs

_LIMITS: tuple[tuple[facts.LimitName, tuple[str, ...], int], ...] = (
    ("memory", ("memory",), 1),
    ("swap", ("memory_swap", "swap"), 1),
    ("pids", ("pids",), 1),
    ("cpu", ("cpu",), 1000),
)
# /proc/PID/limits' names → getrlimit(2)'s
_NAMES = {
    "Max cpu time": "cpu", "Max file size": "fsize", "Max data size": "data", "Max stack size": "stack",
    "Max core file size": "core", "Max resident set": "rss", "Max processes": "nproc", "Max open files": "nofile",
    "Max locked memory": "memlock", "Max address space": "as", "Max file locks": "locks",
    "Max pending signals": "sigpending", "Max msgqueue size": "msgqueue", "Max nice priority": "nice",
    "Max realtime priority": "rtprio", "Max realtime timeout": "rttime",
}  # fmt: skip


def limits(pid: int, host: HostView) -> tuple[tuple[facts.CgroupLimit, ...], dict[str, str]]:
    """Give the effective limits, and by name why one is not known. Raises ProcessLookupError."""
    found = cgroups.limits_of(pid, host.layout)
    result: list[facts.CgroupLimit] = []
    unknown: dict[str, str] = {}
    for name, sources, scale in _LIMITS:
        known = [(source, limit) for source in sources if (limit := found.get(source)) is not None]
        if not known:
            unknown[name] = next(
                (found.unknown[each] for each in sources if each in found.unknown), "no such limit here"
            )
            continue
        source, limit = known[0]
        value = None if limit.value is None else int(limit.value * scale)
        if source == "swap":
            value = _with_memory(value, found.get("memory"))
        result.append(facts.CgroupLimit(where=Where(limit.source), name=name, value=value))
    return tuple(result), unknown


def _with_memory(swap: int | None, memory: cgroups.Limit | None) -> int | None:
    # cgroup2 limits swap apart from memory, the fact has both together as v1 does
    return None if swap is None or memory is None or memory.value is None else swap + int(memory.value)


def device_policy(pid: int, host: HostView) -> cgroup_devices.DevicePolicy:
    """Read the device policy. Raises ProcessLookupError."""
    return cgroup_devices.device_policy(pid, host.layout)


def policy_fact(found: cgroup_devices.DevicePolicy, pid: int) -> facts.DevicePolicy | None:
    """Give the fact of a device policy, None where it can't be read."""
    if found.restricted is None:
        return None
    where = Where(found.source or f"/proc/{pid}/cgroup")
    if found.policy is not None:
        rules = tuple([str(device) for device in found.policy.exceptions])
        default: Literal["allow", "deny"] = "allow" if found.policy.allow else "deny"
        return facts.DevicePolicy(where=where, default=default, rules=rules, source="v1")
    if found.restricted:
        return facts.DevicePolicy(where=where, default="deny", source="bpf")
    return facts.DevicePolicy(where=where, default="allow", source="none")


def permits(found: cgroup_devices.DevicePolicy, device: Device) -> bool | None:
    """Say whether the policy lets a device be opened for reading; None where only BPF programs know."""
    if found.policy is not None:
        return found.policy.permits("b" if device.block else "c", device.major, device.minor, "r")
    return True if found.restricted is False else None


def membership(text: str, host: HostView) -> tuple[str, str, Literal[1, 2]] | None:
    """Give controller, path and version of the cgroup that counts for limits: memory's or pids' on v1, else v2's.

    `text` is that of /proc/PID/cgroup. None where no hierarchy is mounted.
    """
    groups = cgroups.parse_membership(text)
    for controller in ("memory", "pids", "cpu", ""):
        hierarchy = host.layout.unified if not controller else host.layout.controller(controller)
        if hierarchy is not None:
            key = "" if hierarchy.version == 2 else controller
            if key in groups:
                return key, groups[key], 1 if hierarchy.version == 1 else 2
    return None


def rlimits(pid: int) -> Iterator[facts.ResourceLimit]:
    """Give the rlimits. Raises PermissionError without ptrace access, ProcessLookupError."""
    for name, (soft, hard) in process.limits(pid).items():
        if name in _NAMES:
            yield facts.ResourceLimit(where=Where(f"/proc/{pid}/limits"), name=_NAMES[name], soft=soft, hard=hard)


def oom_score_adj(pid: int) -> facts.OomScoreAdj:
    """Give the OOM killer's preference. Raises ProcessLookupError."""
    return facts.OomScoreAdj(where=Where(f"/proc/{pid}/oom_score_adj"), value=int(procfs.read(pid, "oom_score_adj")))
