"""`update`: change the limits of a container that is there, by options or by LinuxResources as JSON."""

from __future__ import annotations

import os

from stockade.errors import StockadeError, UsageError
from stockade.sandbox import cgroup_engine
from stockade.sandbox.linux import procfs
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.runtime import logs, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stockade.sandbox.oci.spec import LinuxResources
    from stockade.sandbox.runtime.arguments import Invocation

#: option → field of LinuxMemory, sizes; of LinuxCPU, whole numbers, below zero only where the type is signed
_MEMORY = {"memory": "limit", "memory-swap": "swap", "memory-reservation": "reservation"}
_CPU = {
    "cpu-period": "period", "cpu-quota": "quota", "cpu-burst": "burst", "cpu-share": "shares", "cpu-idle": "idle",
    "cpu-rt-period": "realtime_period", "cpu-rt-runtime": "realtime_runtime",
}  # fmt: skip
_SIGNED = ("cpu-quota", "cpu-rt-runtime", "cpu-idle")


def run(invocation: Invocation) -> int:
    """Change what is named and leave the rest, device rules included, as it is."""
    options = invocation.options
    if options["l3-cache-schema"] or options["mem-bw-schema"]:
        raise StockadeError("Intel RDT is not supported", hint="leave --l3-cache-schema and --mem-bw-schema out")
    source = options["resources"]
    resources = _read(source) if source else from_options(options)
    container = state.load(invocation.root, invocation.arguments[0], lock=True)
    try:
        if container.status() == state.STOPPED:
            raise StockadeError("container not running", hint="the limits of one that has stopped bind nothing")
        cgroup = container.cgroup()
        try:
            cgroup_engine.update(cgroup, resources)
        except OSError as error:
            raise StockadeError(f"the container's cgroup: {error.strerror}: {error.filename}") from error
        finally:
            cgroup.close()
    finally:
        container.close()
    return 0


def _read(source: str) -> LinuxResources:
    from stockade.sandbox.oci import read

    try:
        data = _standard_input() if source == "-" else procfs.read_path(source)
    except OSError as error:
        raise UsageError(f"--resources {source}: {error.strerror}") from error
    return read.read_resources(data, "standard input" if source == "-" else source)


def _standard_input() -> bytes:
    pieces = []
    while piece := os.read(0, 1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def from_options(options: dict[str, Any]) -> LinuxResources:
    """Give the resources that the options name. UsageError for a value that is none."""
    memory: dict[str, Any] = {field: _size(name, options[name]) for name, field in _MEMORY.items() if options[name]}
    cpu: dict[str, Any] = {field: _number(name, options[name]) for name, field in _CPU.items() if options[name]}
    cpu |= {field: options[f"cpuset-{field}"] for field in ("cpus", "mems") if options[f"cpuset-{field}"]}
    pids, weight = options["pids-limit"], options["blkio-weight"]
    if weight and not 10 <= weight <= 1000:
        raise UsageError(f"--blkio-weight {weight}: the kernel takes 10 to 1000")
    found = oci.LinuxResources(
        memory=oci.LinuxMemory(**memory) if memory else None,
        cpu=oci.LinuxCPU(**cpu) if cpu else None,
        pids=oci.LinuxPids(pids) if pids else None,
        block_io=oci.LinuxBlockIO(weight=weight) if weight else None,
    )
    if found == oci.LinuxResources():
        logs.warn("update: nothing to change was named")
    return found


def _size(name: str, text: str) -> int:
    from stockade.sandbox import values

    if text == "-1":
        return -1
    try:
        return values.size(text)
    except UsageError as error:
        raise UsageError(f"invalid value for {name}: {error.message}: {text!r}") from None


def _number(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise UsageError(f"invalid value for {name}: {text!r} is not a whole number") from None
    if number < 0 and name not in _SIGNED:
        raise UsageError(f"invalid value for {name}: {text!r} is below zero")
    return number
