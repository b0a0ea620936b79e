"""Put a device policy on a container's group: devices.allow and .deny on v1, a BPF program on v2."""

from __future__ import annotations

import os

from stockade.errors import StockadeError
from stockade.sandbox import cgroup_tree
from stockade.sandbox.cgroup_place import Refused
from stockade.sandbox.linux import cgroup_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from stockade.sandbox.cgroup_group import Group
    from stockade.sandbox.linux.cgroup_devices import Device, Policy, Rule


def apply(group: Group, rules: Iterable[Rule], always: tuple[Device, ...] = cgroup_devices.DEFAULTS) -> str:
    """Restrict a group's devices by OCI rules and those `always` allowed, and give what enforces it.

    StockadeError for rules that no policy can say, Refused where the kernel doesn't take the policy. Where a group
    above denies one of `always`, it stays denied.
    """
    try:
        policy = cgroup_devices.policy(rules, always)
    except ValueError as error:
        raise StockadeError(str(error), hint="give rules that add to each other, wildcards first") from None
    if group.hierarchy.version == 1:
        _apply_v1(group, policy, always)
        return f"{group.path}/devices.list"
    _apply_v2(group, policy)
    return f"BPF program on {group.path}"


def _apply_v1(group: Group, policy: Policy, always: tuple[Device, ...]) -> None:
    """Start from the other extreme: a fresh group has its parent's exceptions."""
    file, start = ("devices.deny", "devices.allow") if policy.allow else ("devices.allow", "devices.deny")
    line = "a"
    optional = {(device.type, device.major, device.minor) for device in always}
    denied = set()
    try:
        cgroup_tree.write(group.fd, start, line)
        target = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=group.fd)
        try:
            for device in policy.exceptions:
                line = str(device)
                try:
                    os.write(target, line.encode())
                except PermissionError:
                    if policy.allow or (device.type, device.major, device.minor) not in optional:
                        raise
                    denied.add(device)
        finally:
            os.close(target)
        got = cgroup_devices.parse(cgroup_tree.read(group.fd, "devices.list"))
    except OSError as error:
        raise Refused(
            f"the kernel refuses {line!r} for {group.path}: {error.strerror}",
            "a group above it denies this device",
        ) from error
    held = policy.allow or set(got.exceptions) == set(policy.exceptions) - denied
    if got.allow != policy.allow or not held:
        raise Refused(f"{group.path}/devices.list doesn't hold the rules that were written", "")


def _apply_v2(group: Group, policy: Policy) -> None:
    from stockade.sandbox.linux import cgroup_bpf

    if policy.allow and not policy.exceptions:
        return
    try:
        program = cgroup_bpf.load(cgroup_bpf.pack(cgroup_bpf.program(policy)))
        try:
            cgroup_bpf.replace(group.fd, program)
        finally:
            os.close(program)
        attached = cgroup_bpf.query(group.fd)
    except OSError as error:
        raise Refused(
            f"bpf(2) refuses the device program for {group.path}: {error.strerror}",
            "start it as root with CAP_BPF and CAP_NET_ADMIN, or use a user namespace, where mknod(2) makes no devices",
        ) from error
    if len(attached) != 1:
        raise Refused(f"{len(attached)} device programs are on {group.path} instead of one", "")
