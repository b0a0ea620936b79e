"""System call filters: from a profile and a capability set to a verified program, cached by what it depends on.

Two compilers make programs: our own (filters_range) and libseccomp. Ours is the first choice: its programs are a
fifth as long and load three to eight times faster, it needs no library, and it can say what libseccomp 2.5 can't:
 * the numbers of newer calls on a second architecture;
 * a condition on i386's `socket` that doesn't open socketcall(SYS_SOCKET), which libseccomp allows along with it, for
   every family;
 * several comparisons on one call, which it gets wrong at times or never finishes.
Whichever compiles, the program counts only after filters_verify has run it against the configuration itself.

The path with a warm cache imports neither json nor a compiler.
"""

from __future__ import annotations

import os

from stockade import __version__
from stockade.errors import StockadeError
from stockade.sandbox import cache
from stockade.sandbox.linux import syscalls
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from stockade.sandbox.oci.spec import LinuxSeccomp

# Part of every key, with the release's own version: raise it whenever a change of the compilers may change a program.
_VERSION = b"1"
_KIND = "seccomp"
_LIMIT = 1 << 22  # bytes of a profile


class Filter(Record):
    """A verified seccomp program: `program` is an array of struct sock_filter, `flags` are for seccomp(2).

    `compiler` is "range" or "libseccomp"; `note` says why the compiler that was asked for was not used, or nothing.
    """

    program: bytes
    flags: int
    compiler: str
    note: str = ""

    def __len__(self) -> int:
        """Give the number of instructions."""
        return len(self.program) // 8


def program_for(profile: str, capabilities: Iterable[str], arch: str = "") -> Filter:
    """Give the filter of a profile ("default" or the path of a file) for these CAP_ names.

    `arch` is a uname(2) machine, by default this one. Raises UsageError for a profile that can't be read or understood,
    StockadeError for one that can't be compiled to a correct program.
    """
    machine = machine_name(arch)
    path = profile_path(profile)
    data = _read(path)
    held = sorted(set(capabilities))
    parts = [_VERSION, __version__.encode(), machine.encode(), " ".join(held).encode(), data]
    if b"minKernel" in data:
        parts.append(".".join(os.uname().release.split(".")[:2]).encode())

    def make() -> Filter:
        from stockade.sandbox import filters_profile

        resolved = filters_profile.resolve(filters_profile.parse(data, path), held, machine)
        return _compile(filters_profile.config(resolved, path), machine, "range")

    return cached(parts, make)


def compile_filter(config: LinuxSeccomp | Mapping[str, Any], arch: str = "", compiler: str = "range") -> Filter:
    """Give the filter of a resolved OCI `linux.seccomp`, a record or its JSON object.

    With `compiler` "libseccomp" its program is taken if it passes the verification, else our own; `note` says so.
    """
    machine = machine_name(arch)
    if not isinstance(config, Record):
        from stockade.sandbox import filters_profile

        config = filters_profile.config(config)
    settings = config
    parts = [_VERSION, __version__.encode(), machine.encode(), compiler.encode(), repr(settings).encode()]
    return cached(parts, lambda: _compile(settings, machine, compiler))


def resolve(
    profile: str | Mapping[str, Any], capabilities: Iterable[str], arch: str = "", kernel: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Give the OCI `linux.seccomp` JSON object of a profile (name, path, or decoded) for these capabilities."""
    from stockade.sandbox import filters_profile

    if isinstance(profile, str):
        path = profile_path(profile)
        profile = filters_profile.parse(_read(path), path)
    return filters_profile.resolve(profile, capabilities, machine_name(arch), kernel)


def default_profile(capabilities: Iterable[str], arch: str = "") -> LinuxSeccomp:
    """Give the default profile, resolved, as a record."""
    from stockade.sandbox import filters_profile

    return filters_profile.config(resolve("default", capabilities, arch))


def profile_path(profile: str) -> str:
    """Give the file of a profile: a plain word names one of ours, anything else is a path."""
    if "/" in profile or profile.endswith(".json"):
        return profile
    return os.path.join(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "profiles", "seccomp", profile + ".json"
    )


def _compile(config: LinuxSeccomp, machine: str, compiler: str) -> Filter:
    from stockade.sandbox import filters_policy, filters_range, filters_verify
    from stockade.sandbox.linux import bpf

    policy = filters_policy.policy(config, machine)
    note = ""
    if compiler == "libseccomp":
        from stockade.sandbox import filters_libseccomp

        try:
            program = filters_libseccomp.compile_config(config, machine)
            filters_verify.verify(program, policy)
            return Filter(bpf.pack(program), policy.flags, "libseccomp")
        except StockadeError as error:
            note = error.message
    program = filters_range.compile_policy(policy)
    filters_verify.verify(program, policy)
    return Filter(bpf.pack(program), policy.flags, "range", note)


def cached(parts: list[bytes], make: Callable[[], Filter]) -> Filter:
    """Give what was made for these parts before, else make and keep it."""
    # Each part's length goes before it, so that no two lists of parts give one key.
    key = cache.sha256(b"".join([b"%d:%s" % (len(part), part) for part in parts]))
    stored = cache.get(_KIND, key)
    if stored is not None:
        head, _, program = stored.partition(b"\0")
        flags, compiler, note = head.decode().split(" ", 2)
        return Filter(program, int(flags), compiler, note)
    made = make()
    cache.put(_KIND, key, f"{made.flags} {made.compiler} {made.note}".encode() + b"\0" + made.program)
    return made


def machine_name(arch: str) -> str:
    """Give the uname(2) name by which the tables know an architecture; "" is this machine."""
    machine = arch or os.uname().machine
    return syscalls.ALIASES.get(machine, machine)


def _read(path: str) -> bytes:
    from stockade.errors import UsageError

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"seccomp profile {path}: {os.strerror(error.errno or 0)}") from None
    with open(fd, "rb") as file:
        try:
            data = file.read(_LIMIT + 1)
        except OSError as error:
            raise UsageError(f"seccomp profile {path}: {os.strerror(error.errno or 0)}") from None
    if not data or len(data) > _LIMIT:
        raise UsageError(f"seccomp profile {path}: {'empty' if not data else 'larger than 4 MiB'}")
    return data
