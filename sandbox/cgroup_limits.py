"""From OCI resources to the files of a control group and what is written to them. Pure.

Sources: config-linux.md of the OCI runtime specification, cgroup-v1/*.rst and cgroup-v2.rst of the kernel, and
Docker's meaning of its options where the specification is silent. Names of limits are those of the options of
`stockade run`, so that a message names what the user typed.
"""

from __future__ import annotations

import math
import os

from stockade.errors import StockadeError
from stockade.sandbox.linux import cgroups
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stockade.sandbox.oci.spec import LinuxBlockIO, LinuxCPU, LinuxMemory, LinuxResources

DEFAULT_PERIOD = 100_000  # microseconds, the kernel's default for cpu.max and cpu.cfs_period_us
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Write(Record):
    """One value for one file of a group.

    `limit` is the option's name, `controller` the controller the file belongs to ("" for cgroup2's core), `check` how
    the value is compared when it is read back: "bytes" (rounded down to a page), "same", "prefix" (it begins so),
    "list" (CPUs), "line" (the file has such a line), "pairs" (a line has these key=value), "key" (the last word of
    the first line) or "none" (the kernel's word is enough). `implied` marks a value that nobody named: where its file
    is absent that is noted and not refused. `fallback` is written where the kernel lacks `file`. An empty `file` says
    that this version has no such limit.
    """

    limit: str
    controller: str
    file: str
    value: str
    check: str = "same"
    implied: bool = False
    fallback: Write | None = None


def matches(write: Write, text: str) -> bool:
    """Whether what the kernel gives back is what was written."""
    wanted, got = write.value, text.strip()
    if write.check == "none":
        return True
    if write.check == "bytes":
        if wanted in {"max", "-1"}:
            return got == "max" or int(got) >= cgroups.V1_UNLIMITED
        return got != "max" and int(got) == int(wanted) // _PAGE * _PAGE
    if write.check == "list":
        return cgroups.parse_list(got) == cgroups.parse_list(wanted)
    if write.check == "line":
        return wanted.split() in [line.split() for line in got.splitlines()]
    if write.check == "key":
        return got.split("\n", 1)[0].split()[-1:] == [wanted]
    if write.check == "pairs":
        return any(_has_pairs(line.split(), wanted.split()) for line in got.splitlines())
    if write.check == "prefix":
        return got.split()[: len(wanted.split())] == wanted.split()
    return got.split() == wanted.split()


def _has_pairs(line: list[str], wanted: list[str]) -> bool:
    return line[:1] == wanted[:1] and set(wanted[1:]) <= set(line[1:])


def writes(
    resources: LinuxResources | None, version_of: Callable[[str], int], *, literal: bool = False
) -> tuple[Write, ...]:
    """Give what to write for the resources, in the order in which the kernel accepts it.

    `version_of` tells of a controller whether it is on a v1 or a v2 hierarchy here. Device rules are not among them.
    `literal` is for a config.json, whose values an engine has thought of already: no limit of swap is implied, zero
    means unset, and a value that is the kernel's default may lack its file. StockadeError for values that contradict
    each other.
    """
    if resources is None:
        return ()
    found: list[Write] = []
    if resources.memory:
        memory, version = resources.memory, version_of("memory")
        found += _memory_literal(memory, version) if literal else _memory(memory, version)
    if resources.cpu:
        found += _cpu(resources.cpu, version_of("cpu"))
        for name, file, value in (
            ("cpuset-cpus", "cpuset.cpus", resources.cpu.cpus),
            ("cpuset-mems", "cpuset.mems", resources.cpu.mems),
        ):
            if value:
                found.append(Write(name, "cpuset", file, _checked_list(name, value), "list"))
    if resources.pids:
        limit = resources.pids.limit  # Docker: 0 and -1 are unlimited
        if limit or not literal:
            value = str(limit) if limit > 0 else "max"
            found.append(Write("pids-limit", "pids", "pids.max", value, implied=literal and limit < 0))
    if resources.block_io:
        found += _block_io(resources.block_io, version_of("blkio"))
    found += _rest(resources, version_of)
    return tuple(found)


def _checked_list(limit: str, value: str) -> str:
    try:
        if cgroups.parse_list(value):
            return value
    except ValueError:
        pass
    raise StockadeError(f"{limit}: {value!r} is not a list of numbers such as 0-3,8")


def _memory(memory: LinuxMemory, version: int) -> Iterator[Write]:
    limit, swap = memory.limit or 0, memory.swap or 0
    if swap and not limit:
        raise StockadeError("memory-swap is memory plus swap and needs a memory limit", hint="give --memory too")
    if limit > 0 and 0 < swap < limit:
        raise StockadeError(
            f"memory-swap ({swap} bytes) is memory and swap together and can't be lower than memory ({limit})"
        )
    # Without a limit on swap the memory limit only moves the payload's pages there. Docker's default: twice the memory.
    implied = not swap
    swap = swap or (2 * limit if limit > 0 else -1)
    if version == 1:
        yield from _memory_v1(memory, limit, swap, implied=implied)
        return
    if limit:
        yield Write("memory", "memory", "memory.max", _or_max(limit), "bytes")
        room = "max" if swap < 0 else str(swap - limit)
        yield Write("memory-swap", "memory", "memory.swap.max", room, "bytes", implied)
    yield from _memory_rest(memory, version)


def _or_max(number: int) -> str:
    return "max" if number < 0 else str(number)


def _memory_v1(memory: LinuxMemory, limit: int, swap: int, *, implied: bool) -> Iterator[Write]:
    if limit:
        yield Write("memory", "memory", "memory.limit_in_bytes", str(limit), "bytes")
        yield Write("memory-swap", "memory", "memory.memsw.limit_in_bytes", str(swap), "bytes", implied)
    yield from _memory_rest(memory, 1)


def _memory_literal(memory: LinuxMemory, version: int) -> Iterator[Write]:
    """Write what is there. Unlimited memory with swap unset means unlimited swap, as runc has it."""
    limit, swap = memory.limit or 0, memory.swap or 0
    unset = not swap
    if limit == -1 and unset:
        swap = -1
    if limit > 0 and 0 < swap < limit:
        raise StockadeError(f"memory.swap ({swap}) is memory and swap together and can't be below the limit ({limit})")
    if version == 1:
        if limit:
            yield Write("memory", "memory", "memory.limit_in_bytes", str(limit), "bytes", implied=limit < 0)
        if swap:
            yield Write("memory-swap", "memory", "memory.memsw.limit_in_bytes", str(swap), "bytes", implied=swap < 0)
    else:
        if swap > 0 and limit <= 0:
            raise StockadeError("memory.swap counts memory too, and cgroup v2 needs memory.limit to tell them apart")
        if swap:  # a kernel without swap has no such file, and holds both "0" and "max"
            room = "max" if swap < 0 else str(swap - limit)
            yield Write("memory-swap", "memory", "memory.swap.max", room, "bytes", implied=room in {"0", "max"})
        if limit:
            yield Write("memory", "memory", "memory.max", _or_max(limit), "bytes", implied=limit < 0)
    yield from _memory_rest(memory, version)


def _memory_rest(memory: LinuxMemory, version: int) -> Iterator[Write]:
    if version == 2:
        if memory.reservation:
            yield Write("memory-reservation", "memory", "memory.low", _or_max(memory.reservation), "bytes")
    else:
        for name, file, value in (
            ("memory-reservation", "memory.soft_limit_in_bytes", memory.reservation),
            ("kernel-memory", "memory.kmem.limit_in_bytes", memory.kernel),
            ("kernel-memory-tcp", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp),
        ):
            if value:  # Linux 5.16 took the limit of kernel memory away: memory.limit counts it, too
                implied = value < 0 or name == "kernel-memory"
                yield Write(name, "memory", file, str(value), "bytes", implied=implied)
        if memory.use_hierarchy:  # Linux 5.11 and later know nothing else
            yield Write("memory-use-hierarchy", "memory", "memory.use_hierarchy", "1")
    if memory.swappiness is not None:
        file = "memory.swappiness" if version == 1 else ""
        yield Write("memory-swappiness", "memory", file, str(memory.swappiness))
    if memory.disable_oom_killer:
        file = "memory.oom_control" if version == 1 else ""
        yield Write("oom-kill-disable", "memory", file, "1", "key")


def weight_of_shares(shares: int) -> int:
    """Give the cpu.weight (1 to 10000) of cpu.shares (2 to 262144), so that the two defaults, 1024 and 100, meet.

    The quadratic in log2 that runc, crun and Kubernetes use since 2025; the older linear map gave 1024 shares a weight
    of 39, well below every group beside it. https://github.com/kubernetes/kubernetes/issues/131216
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612.0 - 7.0 / 34.0))


def _cpu(cpu: LinuxCPU, version: int) -> Iterator[Write]:
    if cpu.shares and not 2 <= cpu.shares <= 262144:
        raise StockadeError(f"cpu-shares is {cpu.shares}, the kernel takes 2 to 262144")
    if version == 2:
        yield from _cpu_v2(cpu)
        return
    for name, file, value in (
        ("cpu-shares", "cpu.shares", cpu.shares),
        ("cpus", "cpu.cfs_period_us", cpu.period),
        ("cpus", "cpu.cfs_quota_us", -1 if cpu.quota and cpu.quota < 0 else cpu.quota),
        ("cpu-burst", "cpu.cfs_burst_us", cpu.burst),
        ("cpu-rt-period", "cpu.rt_period_us", cpu.realtime_period),
        ("cpu-rt-runtime", "cpu.rt_runtime_us", cpu.realtime_runtime),
    ):
        if value:
            yield Write(name, "cpu", file, str(value))
    if cpu.idle is not None:
        yield Write("cpu-idle", "cpu", "cpu.idle", str(cpu.idle), implied=not cpu.idle)


def _cpu_v2(cpu: LinuxCPU) -> Iterator[Write]:
    if cpu.shares:
        yield Write("cpu-shares", "cpu", "cpu.weight", str(weight_of_shares(cpu.shares)))
    if cpu.quota or cpu.period:
        quota = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
        yield Write("cpus", "cpu", "cpu.max", f"{quota} {cpu.period or DEFAULT_PERIOD}")
    if cpu.burst:
        yield Write("cpu-burst", "cpu", "cpu.max.burst", str(cpu.burst))
    if cpu.idle is not None:
        yield Write("cpu-idle", "cpu", "cpu.idle", str(cpu.idle), implied=not cpu.idle)
    for name, value in (("cpu-rt-period", cpu.realtime_period), ("cpu-rt-runtime", cpu.realtime_runtime)):
        if value:
            yield Write(name, "cpu", "", str(value))


def _block_io(io: LinuxBlockIO, version: int) -> Iterator[Write]:
    controller = "blkio" if version == 1 else "io"
    if io.weight and version == 1:
        other = Write("blkio-weight", "blkio", "blkio.weight", str(io.weight))
        yield Write("blkio-weight", "blkio", "blkio.bfq.weight", str(io.weight), fallback=other)
    elif io.weight:  # 10..1000 onto 1..10000; bfq has its own file with the old range
        other = Write("blkio-weight", "io", "io.weight", str(io_weight(io.weight)), "key")
        yield Write("blkio-weight", "io", "io.bfq.weight", str(io.weight), "key", fallback=other)
    yield from _weights(io, version)
    for name, file, key, devices in (
        ("device-read-bps", "blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device),
        ("device-write-bps", "blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device),
        ("device-read-iops", "blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device),
        ("device-write-iops", "blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device),
    ):
        for device in devices:
            number = f"{device.major}:{device.minor}"
            if version == 1:
                yield Write(name, controller, file, f"{number} {device.rate}", "line")
            else:
                yield Write(name, controller, "io.max", f"{number} {key}={device.rate}", "pairs")


def io_weight(weight: int) -> int:
    """Give the io.weight (1 to 10000) of a blkio weight (10 to 1000), as runc, crun and systemd do."""
    return 1 + (weight - 10) * 9999 // 990


def _weights(io: LinuxBlockIO, version: int) -> Iterator[Write]:
    if io.leaf_weight:
        yield Write("blkio-leaf-weight", "blkio", "blkio.leaf_weight" if version == 1 else "", str(io.leaf_weight))
    for device in io.weight_device:
        number = f"{device.major}:{device.minor}"
        if device.weight and version == 1:
            value = f"{number} {device.weight}"
            other = Write("blkio-weight-device", "blkio", "blkio.weight_device", value, "line")
            yield Write("blkio-weight-device", "blkio", "blkio.bfq.weight_device", value, "line", fallback=other)
        elif device.weight:
            value = f"{number} {io_weight(device.weight)}"
            other = Write("blkio-weight-device", "io", "io.weight", value, "line")
            value = f"{number} {device.weight}"
            yield Write("blkio-weight-device", "io", "io.bfq.weight", value, "line", fallback=other)
        if device.leaf_weight:
            file = "blkio.leaf_weight_device" if version == 1 else ""
            yield Write("blkio-leaf-weight-device", "blkio", file, f"{number} {device.leaf_weight}", "line")


def _rest(resources: LinuxResources, version_of: Callable[[str], int]) -> Iterator[Write]:
    for page in resources.hugepage_limits:
        if not page.page_size.isalnum():
            raise StockadeError(f"hugepage limit: {page.page_size!r} is not a page size such as 2MB")
        file = "limit_in_bytes" if version_of("hugetlb") == 1 else "max"
        name, value = f"hugetlb.{page.page_size}", str(page.limit)
        yield Write("hugepages", "hugetlb", f"{name}.{file}", value, "none" if page.limit >= 1 << 63 else "bytes")
        # Linux 5.7: what is reserved and not yet touched, without which mmap(2) could take the pages of all others
        yield Write("hugepages reserved", "hugetlb", f"{name}.rsvd.{file}", value, "none", implied=True)
    for name, rdma in resources.rdma.items():
        pairs = (("hca_handle", rdma.hca_handles), ("hca_object", rdma.hca_objects))
        value = " ".join([f"{key}={number}" for key, number in pairs if number is not None])
        yield Write("rdma", "rdma", "rdma.max", f"{name} {value}", "pairs")
    if resources.network and resources.network.class_id:
        file = "net_cls.classid" if version_of("net_cls") == 1 else ""
        yield Write("network-class", "net_cls", file, str(resources.network.class_id))
    for priority in resources.network.priorities if resources.network else ():
        file = "net_prio.ifpriomap" if version_of("net_prio") == 1 else ""
        yield Write("network-priority", "net_prio", file, f"{priority.name} {priority.priority}", "line")
    for file, value in resources.unified.items():
        yield from _unified(file, value, version_of)


def _unified(file: str, value: str, version_of: Callable[[str], int]) -> Iterator[Write]:
    """Write to a file of cgroup2 by its name, line by line: io.max takes one device at a time."""
    controller, dot, _ = file.partition(".")
    if not dot or "/" in file:
        raise StockadeError(f"unified: {file!r} is not the name of a cgroup2 file")
    core = controller == "cgroup"
    there = file if core or version_of(controller) == 2 else ""
    for line in value.strip().split("\n"):
        size = controller in {"memory", "hugetlb"} and file.endswith((".max", ".high", ".low", ".min"))
        check = "bytes" if size and line.isdigit() else "none"
        yield Write(f"unified {file}", "" if core else controller, there, line, check)
