"""OCI resources as properties of a systemd unit, systemd.resource-control(5). Pure, but for /proc/devices."""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox.cgroup_limits import io_weight, weight_of_shares
from stockade.sandbox.linux import cgroup_devices, cgroups, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from stockade.sandbox.linux.cgroup_devices import Device, Policy
    from stockade.sandbox.oci.spec import LinuxCPU, LinuxMemory, LinuxResources

    Property = tuple[str, tuple[str, Any]]

INFINITY = (1 << 64) - 1
_PERIOD = 100_000  # microseconds
#: prefix of annotations that name a property of the scope, as runc has it
ANNOTATION = "org.systemd.property."


def of_unit(unit: str, slice_name: str, description: str, version: int) -> list[Property]:
    """Give the properties that a container's unit has whatever its limits."""
    found: list[Property] = [("Description", ("s", description))]
    if unit.endswith(".slice"):
        found.append(("Wants", ("as", [slice_name])))
    else:
        found += [("Slice", ("s", slice_name)), ("Delegate", ("b", True))]
    io = "IOAccounting" if version == 2 else "BlockIOAccounting"
    names = ("MemoryAccounting", "CPUAccounting", io, "TasksAccounting")
    found += [(name, ("b", True)) for name in names]
    return [*found, ("DefaultDependencies", ("b", False))]


def of_resources(
    resources: LinuxResources | None,
    version: int,
    *,
    user: bool = False,
    devices: bool = True,
    current: tuple[int, int] = (0, 0),
) -> list[Property]:
    """Give the limits that systemd has properties for; the rest is in the group's files alone.

    `current` is the memory limit and the CPU period that hold already, 0 where none is known.
    """
    found: list[Property] = []
    if devices and not user:
        found += _devices(resources)
    if resources is None:
        return found
    if resources.memory:
        found += _memory(resources.memory, version, current[0])
    if resources.cpu:
        found += _cpu(resources.cpu, version, current[1])
    if resources.pids and resources.pids.limit:
        found.append(("TasksMax", ("t", _limit(resources.pids.limit))))
    if resources.block_io and resources.block_io.weight:
        weight = resources.block_io.weight
        found.append(("IOWeight", ("t", io_weight(weight))) if version == 2 else ("BlockIOWeight", ("t", weight)))
    return found + list(_unified(resources.unified))


#: files of cgroup2 that are one number
_NUMBERS = {
    "cpu.weight": "CPUWeight",
    "memory.min": "MemoryMin",
    "memory.low": "MemoryLow",
    "memory.high": "MemoryHigh",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}
_LISTS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _unified(files: Mapping[str, str]) -> Iterator[Property]:
    """Give the properties that stand for files of cgroup2; systemd has none for the others."""
    for file, text in files.items():
        value = text.strip()
        if file in _NUMBERS:
            yield _NUMBERS[file], ("t", INFINITY if value == "max" else _number(file, value))
        elif file in _LISTS and value:
            yield _LISTS[file], ("ay", bits(value))
        elif file == "cpu.max":
            quota, _, period = value.partition(" ")
            number, per = (-1 if quota == "max" else _number(file, quota)), _number(file, period or str(_PERIOD))
            yield "CPUQuotaPeriodUSec", ("t", per)
            yield "CPUQuotaPerSecUSec", ("t", _per_second(number, per or _PERIOD))


def _number(file: str, text: str) -> int:
    """Read a number as the kernel does, memparse(): 80M is one."""
    unit = text[-1:].upper() if not text[-1:].isdigit() else ""
    digits = text[: len(text) - len(unit)]
    if not digits.isdigit() or unit not in _UNITS:
        raise StockadeError(f"unified {file}: {text!r} is not a number")
    return int(digits) * _UNITS[unit]


def _limit(number: int) -> int:
    return INFINITY if number < 0 else number


def _memory(memory: LinuxMemory, version: int, current: int) -> Iterator[Property]:
    limit, swap = memory.limit or 0, memory.swap or 0
    if version == 1:
        if limit:
            yield "MemoryLimit", ("t", _limit(limit))
        return
    if limit:
        yield "MemoryMax", ("t", _limit(limit))
    if memory.reservation:
        yield "MemoryLow", ("t", _limit(memory.reservation))
    if swap < 0 or (limit == -1 and not swap):
        yield "MemorySwapMax", ("t", INFINITY)
    elif swap > 0 and max(limit, current) > 0:
        yield "MemorySwapMax", ("t", max(0, swap - (limit or current)))


def _cpu(cpu: LinuxCPU, version: int, current: int) -> Iterator[Property]:
    if version == 1:
        if cpu.shares:
            yield "CPUShares", ("t", cpu.shares)
    elif cpu.idle == 1:
        yield "CPUWeight", ("t", 0)  # systemd 252: idle
    elif cpu.shares:
        yield "CPUWeight", ("t", weight_of_shares(cpu.shares))
    if cpu.period:
        yield "CPUQuotaPeriodUSec", ("t", cpu.period)
    if cpu.quota or cpu.period:
        yield "CPUQuotaPerSecUSec", ("t", _per_second(cpu.quota or 0, cpu.period or current or _PERIOD))
    if version == 2:
        for name, value in (("AllowedCPUs", cpu.cpus), ("AllowedMemoryNodes", cpu.mems)):
            if value:
                yield name, ("ay", bits(value))


def _per_second(quota: int, period: int) -> int:
    """Give microseconds a second, up to the next whole percent: systemd rounds down, and the group would get less."""
    return -(-(quota * 1_000_000 // period) // 10_000) * 10_000 if quota > 0 else INFINITY


def bits(text: str) -> bytes:
    """Give a list such as 0-3,8 as systemd takes it: bit n % 8 of byte n / 8."""
    try:
        numbers = cgroups.parse_list(text)
    except ValueError:
        raise StockadeError(f"{text!r} is not a list of numbers such as 0-3,8") from None
    found = bytearray(max(numbers, default=-1) // 8 + 1)
    for number in numbers:
        found[number // 8] |= 1 << number % 8
    return bytes(found)


def _devices(resources: LinuxResources | None) -> list[Property]:
    try:
        policy = cgroup_devices.policy(resources.devices if resources else (), cgroup_devices.ENGINE)
    except ValueError as error:
        raise StockadeError(str(error), hint="give rules that add to each other, wildcards first") from None
    if policy.allow:  # systemd knows no list of what is denied; the group's own program has it
        return [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]
    entries = list(_allowed(policy))
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", [])), ("DeviceAllow", ("a(ss)", entries))]


def _allowed(policy: Policy) -> Iterator[tuple[str, str]]:
    groups = _groups()
    for device in policy.exceptions:
        name = _specifier(device, groups)
        if name:
            yield name, device.access


def _specifier(device: Device, groups: dict[tuple[str, int], str]) -> str:
    """Name devices as DeviceAllow= does, "" for what it has no word for: those stay denied by systemd."""
    kind = "char" if device.type == "c" else "block"
    if device.major is None:
        return f"{kind}-*" if device.minor is None else ""
    if device.minor is None:
        return groups.get((kind, device.major), "")
    return f"/dev/{kind}/{device.major}:{device.minor}"


def _groups() -> dict[tuple[str, int], str]:
    """Read the names of major numbers from /proc/devices."""
    found: dict[tuple[str, int], str] = {}
    kind = ""
    for line in procfs.read_path("/proc/devices").decode(errors="replace").splitlines():
        words = line.split()
        if line.endswith("devices:"):
            kind = "char" if line.startswith("Character") else "block"
        elif len(words) == 2 and words[0].isdigit():
            found.setdefault((kind, int(words[0])), f"{kind}-{words[1]}")
    return found


def of_annotations(annotations: Mapping[str, str]) -> list[Property]:
    """Read runc's annotations org.systemd.property.NAME, whose values are GVariant texts; StockadeError for others."""
    found = []
    for key, text in annotations.items():
        if not key.startswith(ANNOTATION):
            continue
        name = key[len(ANNOTATION) :]
        if not name.isalpha() or len(name) < 3:
            raise StockadeError(f"annotation {key}: {name!r} is not the name of a systemd property")
        value = _variant(text.strip(), key)
        if name.endswith("Sec") and not name.endswith("USec"):  # systemd's own unit, as runc has it
            name, value = name[:-3] + "USec", _microseconds(value, key)
        found.append((name, value))
    return found


_WORDS = {"byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t"}


def _variant(text: str, key: str) -> tuple[str, Any]:
    word, _, number = text.partition(" ")
    if text in {"true", "false"}:
        return "b", text == "true"
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return "s", text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        items = [item.strip() for item in text[1:-1].split(",") if item.strip()]
        if all(len(item) >= 2 and item[0] == item[-1] and item[0] in "'\"" for item in items):
            return "as", [item[1:-1] for item in items]
    try:
        return (_WORDS[word], int(number)) if word in _WORDS else ("i", int(text))
    except ValueError:
        raise StockadeError(
            f"annotation {key}: {text!r} is no value that is understood",
            hint="write true, false, 'text', ['text'], 5 or uint64 5",
        ) from None


def _microseconds(value: tuple[str, Any], key: str) -> tuple[str, Any]:
    if value[0] in {"b", "s", "as"} or value[1] < 0:
        raise StockadeError(f"annotation {key}: seconds are a number")
    return "t", value[1] * 1_000_000
