"""Which devices a control group may open or make: the policy, its v1 text and its reading back.

cgroup-v1/devices.rst. A policy is what the kernel's v1 controller keeps: a default, and exceptions from it. Rules in
order, as OCI writes them, are folded into one; what this form can't say is refused instead of guessed.
"""

from __future__ import annotations

from stockade.sandbox.linux import cgroups
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from stockade.sandbox.linux.cgroups import Layout

    class Rule(Protocol):
        """A rule with the fields of OCI's LinuxDeviceCgroup."""

        @property
        def allow(self) -> bool: ...  # noqa: D102 - the field of OCI

        @property
        def type(self) -> str: ...  # noqa: D102 - the field of OCI

        @property
        def major(self) -> int | None: ...  # noqa: D102 - the field of OCI

        @property
        def minor(self) -> int | None: ...  # noqa: D102 - the field of OCI

        @property
        def access(self) -> str: ...  # noqa: D102 - the field of OCI


class Device(Record):
    """A set of devices and what is done with them: `type` "c" or "b", None for any number, access of "rwm" in order."""

    type: str
    major: int | None
    minor: int | None
    access: str = "rwm"

    def __str__(self) -> str:
        return f"{self.type} {_star(self.major)}:{_star(self.minor)} {self.access}"


class Policy(Record):
    """Whether devices are allowed by default, and the exceptions from that. v1 doesn't list those from allowing."""

    allow: bool
    exceptions: tuple[Device, ...] = ()

    def permits(self, kind: str, major: int, minor: int, access: str = "rw") -> bool:
        """Whether an access is allowed: one exception must cover all of it to allow, any part of it to deny."""
        for device in self.exceptions:
            if device.type != kind or device.major not in {None, major} or device.minor not in {None, minor}:
                continue
            shared = set(access) & set(device.access)
            if (shared and self.allow) or (shared == set(access) and not self.allow):
                return not self.allow
        return self.allow


class DevicePolicy(Record):
    """What restricts the devices of a process.

    `policy` is known for v1; for cgroup2 `programs` has the kernel's numbers of the BPF programs in effect, all of
    which must allow. `restricted` is None, and `unknown` has the reason, where neither could be read. `source` is the
    place.
    """

    restricted: bool | None
    source: str = ""
    policy: Policy | None = None
    programs: tuple[int, ...] = ()
    unknown: str = ""


#: OCI's default devices, config-linux.md: a container has them whatever its own rules say.
DEFAULTS = (
    *[Device("c", 1, minor) for minor in (3, 5, 7, 8, 9)],  # null zero full random urandom
    *[Device("c", 5, minor) for minor in (0, 1, 2)],  # tty console ptmx
    Device("c", 136, None),  # pts/*
)

#: what an engine's container has besides: runc and crun let it make any node, which gives no access to the device, and
#: use its own network's tun interfaces
ENGINE = (*DEFAULTS, Device("c", None, None, "m"), Device("b", None, None, "m"), Device("c", 10, 200))


def _star(number: int | None) -> str:
    return "*" if number is None else str(number)


def parse(text: str) -> Policy:
    """Read devices.list."""
    exceptions = []
    for line in text.splitlines():
        kind, numbers, access = line.split()
        if kind == "a":
            return Policy(allow=True)
        major, minor = (None if part == "*" else int(part) for part in numbers.split(":"))
        exceptions.append(Device(kind, major, minor, access))
    return Policy(allow=False, exceptions=tuple(exceptions))


def policy(rules: Iterable[Rule], always: tuple[Device, ...] = DEFAULTS) -> Policy:
    """Fold rules, the later over the earlier, into one policy; `always` is allowed last.

    ValueError for a rule that is malformed, or that takes back a part of an exception, which no policy can say.
    """
    allow = False
    exceptions: dict[tuple[str, int | None, int | None], str] = {}
    for rule in rules:
        devices = _devices(rule)
        if not devices:
            allow, exceptions = rule.allow, {}
        for device in devices:
            _apply(exceptions, device, add=rule.allow != allow)
    for device in always:
        _apply(exceptions, device, add=not allow)
    return Policy(allow, tuple(Device(*key, access) for key, access in exceptions.items()))


def _devices(rule: Rule) -> tuple[Device, ...]:
    """Give the devices of a rule, () for all. "a" with numbers means both kinds, where v1 would take it for all."""
    access = "".join([letter for letter in "rwm" if letter in rule.access]) or "rwm"
    major, minor = (None if number is None or number < 0 else number for number in (rule.major, rule.minor))
    if not set(rule.access) <= set("rwm"):
        raise ValueError(f"device access {rule.access!r} is not made of r, w and m")
    if rule.type in {"", "a"}:
        if major is None and minor is None and access == "rwm":
            return ()
        return Device("c", major, minor, access), Device("b", major, minor, access)
    if rule.type not in {"c", "u", "b"}:
        raise ValueError(f"device type {rule.type!r} is none of a, b, c, u")
    return (Device("b" if rule.type == "b" else "c", major, minor, access),)


def _apply(exceptions: dict[tuple[str, int | None, int | None], str], device: Device, *, add: bool) -> None:
    """Add an exception, or take one back."""
    own = (device.type, device.major, device.minor)
    if add:
        old = exceptions.get(own, "")
        exceptions[own] = "".join([letter for letter in "rwm" if letter in old + device.access])
        return
    for key, access in list(exceptions.items()):
        kind, major, minor = key
        apart = kind != device.type or _differ(major, device.major) or _differ(minor, device.minor)
        if apart or not set(access) & set(device.access):
            continue
        if device.major not in {None, major} or device.minor not in {None, minor}:
            raise ValueError(f"device rule {device} takes back a part of the earlier {Device(*key, access)}")
        rest = "".join([letter for letter in access if letter not in device.access])
        if rest:
            exceptions[key] = rest
        else:
            del exceptions[key]


def _differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def device_policy(pid: int | str = "self", where: Layout | None = None, root: str = "") -> DevicePolicy:
    """Read what restricts the devices of a process; OSError if it is gone.

    The v1 list of its own group is enough: the kernel lets no group allow what its parent denies. On cgroup2 the
    programs in effect are asked for, with those of all ancestors; that needs CAP_NET_ADMIN or CAP_BPF on the host.
    """
    where = where or cgroups.layout(root)
    groups = cgroups.membership(pid, root)
    listed = DevicePolicy(None, unknown="no hierarchy with the devices controller is mounted")
    if where.controller("devices"):
        listed = _listed(groups, where, root)
    if listed.restricted or where.unified is None:
        return listed
    programs = _programs(groups, where, root)
    if programs.restricted or not listed.source:
        return programs
    return listed if programs.restricted is not None else listed.replace(restricted=None, unknown=programs.unknown)


def _listed(groups: dict[str, str], where: Layout, root: str) -> DevicePolicy:
    try:
        _, directory = cgroups.locate("devices", groups, where)
        source = f"{directory}/devices.list"
        found = parse(cgroups.read_text(root + source, size=1 << 20))
    except (LookupError, OSError, ValueError) as error:
        return DevicePolicy(None, unknown=str(error))
    return DevicePolicy(not found.allow, source, found)


def _programs(groups: dict[str, str], where: Layout, root: str) -> DevicePolicy:
    from stockade.sandbox.linux import cgroup_bpf

    try:
        _, directory = cgroups.locate("", groups, where)
        programs = cgroup_bpf.effective(root + directory)
    except (LookupError, OSError) as error:
        return DevicePolicy(None, unknown=f"BPF_PROG_QUERY: {error}")
    return DevicePolicy(bool(programs), directory, programs=programs)
