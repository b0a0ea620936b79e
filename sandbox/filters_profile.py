"""Seccomp profiles: OCI's shape with containers-common's `includes` and `excludes`, resolved for one container.

Not on the hot path: a warm cache needs none of this.
"""

from __future__ import annotations

import json
import os

from stockade.errors import UsageError
from stockade.sandbox.linux import syscalls
from stockade.sandbox.oci.spec import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

# Go's names of architectures, which profiles use in includes.arches
_GO_NAMES = {"x86_64": "amd64", "i386": "x86", "aarch64": "arm64"}


def parse(data: bytes, path: str) -> dict[str, Any]:
    """Decode a profile. Raises UsageError when it is no JSON object."""
    try:
        profile = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {error}") from None
    if not isinstance(profile, dict):
        raise UsageError(f"{path}: a seccomp profile is a JSON object")
    return profile


def resolve(
    profile: Mapping[str, Any], capabilities: Iterable[str], machine: str, kernel: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Give the OCI `linux.seccomp` object of a profile for a capability set, a uname(2) machine and a kernel (6, 18).

    An entry counts when all capabilities of its `includes` and none of its `excludes` are there, and likewise for
    `arches` (any of them) and `minKernel`. A plain OCI object comes out as it went in.
    """
    held = {_capability(name) for name in capabilities}
    kernel = kernel or running_kernel()
    architectures = [str(name) for name in _list(profile, "architectures", "$")]
    for entry in _list(profile, "archMap", "$"):
        own = syscalls.architecture(str(entry.get("architecture")))
        if own is not None and own.name == machine:
            architectures = [entry["architecture"], *_list(entry, "subArchitectures", "$.archMap")]
    resolved: dict[str, Any] = {}
    for key in ("defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(key) is not None:
            resolved[key] = profile[key]
    resolved["architectures"] = architectures
    resolved["syscalls"] = [
        {key: call[key] for key in ("names", "action", "errnoRet", "args") if call.get(key) is not None}
        for call in (_named(each) for each in _list(profile, "syscalls", "$"))
        if _counts(call, held, machine, kernel)
    ]
    return resolved


def config(data: Mapping[str, Any], name: str = "seccomp") -> LinuxSeccomp:
    """Read a resolved OCI object strictly. Raises UsageError that names the place."""
    return LinuxSeccomp(
        default_action=_get(data, "defaultAction", str, f"{name}: $"),
        default_errno_ret=_get(data, "defaultErrnoRet", int, f"{name}: $", None),
        architectures=_strings(data, "architectures", f"{name}: $"),
        flags=_strings(data, "flags", f"{name}: $"),
        listener_path=_get(data, "listenerPath", str, f"{name}: $", ""),
        listener_metadata=_get(data, "listenerMetadata", str, f"{name}: $", ""),
        syscalls=tuple(
            [
                _call(call, f"{name}: $.syscalls[{number}]")
                for number, call in enumerate(_list(data, "syscalls", f"{name}: $"))
            ]
        ),
    )


def running_kernel() -> tuple[int, ...]:
    """Give (6, 18) for a kernel that calls itself 6.18.44-something."""
    parts = os.uname().release.split(".")
    return tuple([int("".join(c for c in part if c.isdigit()) or "0") for part in parts[:2]])


def _counts(call: Mapping[str, Any], held: set[str], machine: str, kernel: tuple[int, ...]) -> bool:
    includes, excludes = call.get("includes") or {}, call.get("excludes") or {}
    mine = {each.name for each in syscalls.ACCEPTED.get(machine, ())}
    mine |= {_GO_NAMES[name] for name in mine if name in _GO_NAMES}
    if not {_capability(name) for name in includes.get("caps") or ()} <= held:
        return False
    if {_capability(name) for name in excludes.get("caps") or ()} & held:
        return False
    arches = includes.get("arches") or ()
    if (arches and not mine & set(arches)) or mine & set(excludes.get("arches") or ()):
        return False
    least, without = includes.get("minKernel"), excludes.get("minKernel")
    return not (least and kernel < _version(least)) and not (without and kernel >= _version(without))


def _named(call: Any) -> Mapping[str, Any]:
    """Take the singular `name` of old profiles too."""
    if not isinstance(call, dict):
        raise UsageError("seccomp: $.syscalls: expected objects")
    return {"names": [call["name"]], **call} if "name" in call and "names" not in call else call


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple([int(part) for part in str(text).split(".")[:2]])
    except ValueError:
        raise UsageError(f"seccomp: minKernel {text!r} is no kernel version") from None


def _capability(name: str) -> str:
    upper = str(name).upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def _call(call: Mapping[str, Any], where: str) -> LinuxSyscall:
    return LinuxSyscall(
        names=_strings(call, "names", where),
        action=_get(call, "action", str, where),
        errno_ret=_get(call, "errnoRet", int, where, None),
        args=tuple([_arg(arg, f"{where}.args[{number}]") for number, arg in enumerate(_list(call, "args", where))]),
    )


def _arg(arg: Mapping[str, Any], where: str) -> LinuxSeccompArg:
    return LinuxSeccompArg(
        index=_get(arg, "index", int, where),
        value=_get(arg, "value", int, where),
        op=_get(arg, "op", str, where),
        value_two=_get(arg, "valueTwo", int, where, 0),
    )


_REQUIRED: Any = object()


def _get(data: Mapping[str, Any], key: str, kind: type, where: str, default: Any = _REQUIRED) -> Any:
    if not isinstance(data, dict):
        raise UsageError(f"{where}: expected an object")
    value = data.get(key, default)
    if value is None and default is not _REQUIRED:
        return default
    if value is _REQUIRED or type(value) is not kind:
        raise UsageError(f"{where}.{key}: expected {'a string' if kind is str else 'an integer'}")
    return value


def _list(data: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key) if isinstance(data, dict) else None
    if value is not None and not isinstance(value, list):
        raise UsageError(f"{where}.{key}: expected an array")
    return value or []


def _strings(data: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = _list(data, key, where)
    if not all(isinstance(value, str) for value in values):
        raise UsageError(f"{where}.{key}: expected strings")
    return tuple(values)
