"""The single steps of harden(): each takes one thing from the calling thread or process and raises when it stays."""

from __future__ import annotations

import os

from stockade.errors import StockadeError
from stockade.sandbox.linux import capabilities, process
from stockade.sandbox.linux.capabilities import mask
from stockade.sandbox.supervisor import confirm, die_with_parent, prctl, undumpable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockade.sandbox.linux.capabilities import Sets
    from stockade.sandbox.linux.process import Status

SETPCAP = mask(["CAP_SETPCAP"])

#: uid 0 gives nothing at execve or setuid, nothing is raised into the ambient set, and none of it can be undone
LOCKED = (
    capabilities.SECBIT_NOROOT
    | capabilities.SECBIT_NOROOT_LOCKED
    | capabilities.SECBIT_NO_SETUID_FIXUP
    | capabilities.SECBIT_NO_SETUID_FIXUP_LOCKED
    | capabilities.SECBIT_KEEP_CAPS_LOCKED
    | capabilities.SECBIT_NO_CAP_AMBIENT_RAISE
    | capabilities.SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED
)


def may_set_bounding(now: Sets) -> bool:
    """Whether the thread can have CAP_SETPCAP effective, which dropping from the bounding set and securebits need."""
    return bool(now.permitted & SETPCAP)


def securebits() -> int:
    """Give the securebits of the calling thread."""
    return int(prctl().get_securebits())


def wanted_securebits(now: Sets) -> int | None:
    """Give the securebits to end with, or None where they can't be set."""
    if not may_set_bounding(now):
        return None
    return (securebits() | LOCKED) & ~capabilities.SECBIT_KEEP_CAPS


def checked_limits(limits: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """Give (RLIMIT number, value) of each limit. Raises StockadeError for an unknown name and for raising one."""
    import resource

    checked = []
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None or name != name.lower():
            raise StockadeError(f"set the limit {name!r}: there is no such limit", hint="see setrlimit(2)")
        hard = resource.getrlimit(number)[1]
        if value < 0 or (hard != resource.RLIM_INFINITY and value > hard):
            raise StockadeError(f"set the limit {name!r} to {value}: {hard} is what the process has")
        checked.append((number, value))
    return tuple(checked)


def set_limits(limits: tuple[tuple[int, int], ...]) -> None:
    """Set soft and hard resource limits and read them back."""
    import resource

    for number, value in limits:
        resource.setrlimit(number, (value, value))
        confirm(f"set resource limit {number}", resource.getrlimit(number), wanted=(value, value))


def close_descriptors(keep: tuple[int, ...]) -> None:
    """Close every descriptor above 2 but those in `keep`."""
    from stockade.sandbox.linux.calls import close_range

    first = 3
    for descriptor in sorted({number for number in keep if number > 2}):
        if descriptor > first:
            close_range(first, descriptor - 1)
        first = descriptor + 1
    close_range(first, 0xFFFFFFFF)


def set_capabilities(sets: Sets, bits: int | None) -> None:
    """Leave the calling thread with exactly these sets and, unless None, with these securebits."""
    from stockade.sandbox.linux import calls

    now = capabilities.own()
    able = now.permitted & SETPCAP
    # CAP_SETPCAP stays until the bounding set and the securebits are done.
    calls.capset(sets.effective | able, sets.permitted | able, sets.inheritable)
    if able:
        module = prctl()
        for number in range(64):
            if (now.bounding & ~sets.bounding) >> number & 1:
                module.capbset_drop(number)
    ambient = capabilities.own().ambient
    for number in range(64):
        wanted = sets.ambient >> number & 1
        # Only what differs: raising may be locked, and capset has lowered what left the other sets.
        if wanted != ambient >> number & 1:
            calls.cap_ambient(calls.PR_CAP_AMBIENT_RAISE if wanted else calls.PR_CAP_AMBIENT_LOWER, number)
    if bits is not None and bits != securebits():
        # python-prctl refuses the bits of the ambient set as invalid.
        calls.prctl(calls.PR_SET_SECUREBITS, bits)
    calls.capset(sets.effective, sets.permitted, sets.inheritable)


def set_no_new_privs() -> None:
    """Set no_new_privs of the calling thread."""
    module = prctl()
    module.set_no_new_privs(1)
    confirm("set no_new_privs", module.get_no_new_privs(), wanted=1)


def set_process(death_signal: int, parent: int, *, dumpable: bool) -> None:
    """Set what a change of credentials would have reset: the parent-death signal, and undumpable."""
    if not dumpable:
        undumpable()
    if death_signal:
        die_with_parent(death_signal, parent)


def checked_program(program: bytes) -> bytes:
    """Give the filter back when the kernel would take it. Raises StockadeError."""
    from stockade.sandbox.linux import bpf

    try:
        wrong = bpf.check(bpf.unpack(program))
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise StockadeError(f"load the filter: {wrong}")
    return program


def load_filter(program: bytes, before: Status) -> Status:
    """Load a filter into all threads, and read it back from /proc where the filter itself lets us.

    When it refuses reading, the kernel's word is the result of seccomp(2) alone, and the state is the one from before
    with one filter more.
    """
    from stockade.sandbox.linux import calls

    expected = process.status("thread-self")
    expected = expected.replace(seccomp=2, seccomp_filters=(before.seccomp_filters or 0) + 1)
    # Opened before: the filter may forbid that.
    descriptors = [os.open(f"/proc/self/task/{thread}/status", os.O_RDONLY) for thread in process.threads("self")]
    flags = calls.SECCOMP_FILTER_FLAG_TSYNC
    failed = calls.seccomp(calls.SECCOMP_SET_MODE_FILTER, flags, program)
    if failed:
        raise StockadeError(f"load the filter: thread {failed} has another one and can't follow")
    if not lets_read(program):
        return expected
    for descriptor in descriptors:
        status = process.parse_status(os.pread(descriptor, 1 << 20, 0).decode("utf-8", "surrogateescape"))
        confirm(f"load the filter into thread {status.pid}", status.seccomp, wanted=2)
        confirm(f"set no_new_privs of thread {status.pid}", status.no_new_privs, wanted=True)
        if status.pid == expected.pid:
            confirm("count the filters", status.seccomp_filters, wanted=expected.seccomp_filters)
        os.close(descriptor)
    return expected


def lets_read(program: bytes) -> bool:
    """Whether a filter allows pread64(2) and close(2) on this machine, so that it can be read back."""
    from stockade.sandbox.linux import bpf, seccomp, syscalls

    machine = os.uname().machine
    architecture = syscalls.architecture(machine)
    if architecture is None:
        return False
    numbers = syscalls.numbers(machine)
    allowed = (seccomp.RET_ALLOW, seccomp.RET_LOG)
    unpacked = bpf.unpack(program)
    return all(bpf.run(unpacked, numbers[name], architecture.audit) in allowed for name in ("pread64", "close"))
