"""What one section of config.json demands of another, and what this runtime can't do: refused before anything is made.

The rules are runc's (libcontainer/configs/validate), so that a bundle that is refused there is refused here.
"""

from __future__ import annotations

import os

from stockade.errors import UsageError
from stockade.sandbox.linux import capabilities
from stockade.sandbox.oci.checks import Invalid
from stockade.sandbox.oci.lean_json import shown
from stockade.sandbox.oci.spec import LABEL, PRIVATE
from stockade.sandbox.oci.write import key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.oci.spec import Linux, Process, Spec

#: sysctls of the IPC namespace, ipc_namespaces(7)
IPC_SYSCTLS = frozenset(
    (
        *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem"),
        *("kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"),
    )
)
_CAPABILITIES = frozenset(capabilities.NAMES)


def check(spec: Spec, name: str) -> None:
    """Raise UsageError that names the place, `config.json: $.hostname: …`, for a container that can't be as it says."""
    try:
        _check(spec)
    except Invalid as error:
        raise UsageError(f"{name}: ${error.path}: {error.message}") from None


def mend(spec: Spec, warnings: list[str]) -> Spec:
    """Give a Spec without what the specification has runtimes tolerate; what was tolerated goes to `warnings`.

    A relative destination counts from / ("Mounts"); the flags of a personality have no meaning yet.
    """
    changes: dict[str, object] = {}
    if spec.process is not None:
        process = mend_process(spec.process, warnings, "$.process")
        if process is not spec.process:
            changes["process"] = process
    if not all(mount.destination.startswith("/") for mount in spec.mounts):
        for index, mount in enumerate(spec.mounts):
            if not mount.destination.startswith("/"):
                warnings.append(f"$.mounts[{index}].destination: {mount.destination!r} is taken as relative to /")
        changes["mounts"] = tuple(
            [each.replace(destination="/" + each.destination.lstrip("/")) for each in spec.mounts]
        )
    personality = spec.linux.personality
    if personality is not None and personality.flags:
        warnings.append("$.linux.personality.flags: ignored, there are none in the specification")
        changes["linux"] = spec.linux.replace(personality=personality.replace(flags=()))
    return spec.replace(**changes) if changes else spec


def foreign(spec: Spec, warnings: list[str]) -> Spec:
    """Give a Spec that somebody else wrote without the annotations that have a meaning for Stockade's own.

    Annotations may come from whoever may only label a container, such as the author of a pod.
    """
    private = [name for name in spec.annotations if name.startswith(PRIVATE) and not name.startswith(LABEL)]
    if not private:
        return spec
    warnings += [f"$.annotations[{shown(name)}]: it has no meaning in a bundle and is left out" for name in private]
    return spec.replace(annotations={name: spec.annotations[name] for name in spec.annotations if name not in private})


def mend_process(process: Process, warnings: list[str], path: str = "$") -> Process:
    """Give a Process without capabilities that nobody here knows: "MUST be logged as a warning", config.md."""
    held = process.capabilities
    if held is None:
        return process
    changes = {}
    for field in type(held)._fields:
        names = getattr(held, field)
        if not _CAPABILITIES.issuperset(names):
            unknown = [each for each in names if each not in _CAPABILITIES]
            warnings += [
                f"{path}.capabilities.{field}: unknown capability {shown(each)} is left out" for each in unknown
            ]
            changes[field] = tuple([each for each in names if each in _CAPABILITIES])
    return process.replace(capabilities=held.replace(**changes)) if changes else process


def _check(spec: Spec) -> None:
    linux = spec.linux
    if linux.namespace("uts") is None:
        for name in ("hostname", "domainname"):
            if getattr(spec, name):
                raise Invalid(f".{name}", "needs a uts namespace in $.linux.namespaces: it would change the host's")
    if linux.namespace("mount") is None:
        for field in ("masked_paths", "readonly_paths"):
            if getattr(linux, field):
                raise Invalid(f".linux.{key(field)}", "needs a mount namespace in $.linux.namespaces")
    if linux.time_offsets and linux.namespace("time") is None:
        raise Invalid(".linux.timeOffsets", "needs a time namespace in $.linux.namespaces")
    if linux.sysctl:
        _sysctls(linux)
    _unsupported(linux)


def _sysctls(linux: Linux) -> None:
    """Let through what belongs to a namespace of the container's own; everything else is the host's."""
    for given in linux.sysctl:
        name = _dotted(given)
        if name in IPC_SYSCTLS or name.startswith("fs.mqueue."):
            needs, there = "an ipc", linux.namespace("ipc") is not None
        elif name.startswith("net."):
            needs, there = "a network", _own_network(linux)
        elif name == "kernel.domainname":
            needs, there = "a uts", linux.namespace("uts") is not None
        elif name == "kernel.hostname":
            raise Invalid(".linux.sysctl", f"{given!r} is what $.hostname is for")
        else:
            raise Invalid(".linux.sysctl", f"{given!r} is not in a namespace: it would change the host's")
        if not there:
            raise Invalid(".linux.sysctl", f"{given!r} needs {needs} namespace of the container's own")


def _dotted(name: str) -> str:
    """Give a sysctl's name with dots between its parts: with net/ipv4/conf/eth0.1 the dot is a part's, sysctl(8)."""
    first = min([place for place in (name.find("."), name.find("/")) if place >= 0], default=-1)
    if first < 0 or name[first] == ".":
        return name
    return name.translate({ord("."): "/", ord("/"): "."})


def _own_network(linux: Linux) -> bool:
    """Whether the container has another network namespace than we: a new one, or one joined that isn't ours."""
    namespace = linux.namespace("network")
    if namespace is None:
        return False
    if not namespace.path:
        return True
    try:
        theirs, ours = os.stat(namespace.path), os.stat("/proc/self/ns/net")
    except OSError as error:
        raise Invalid(".linux.namespaces", f"network namespace {namespace.path}: {error.strerror}") from None
    return (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino)


def _unsupported(linux: Linux) -> None:
    if linux.intel_rdt is not None:
        raise Invalid(".linux.intelRdt", "Intel RDT is not supported; limit processors with $.linux.resources.cpu")
    if linux.net_devices:
        raise Invalid(
            ".linux.netDevices", "moving network devices is not supported; an engine's network plugin can do it"
        )
