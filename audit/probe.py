"""Which control files open with exactly a target's credentials: asked of the kernel by a child that becomes it.

The parent half. A `Prober` starts a helper once, a static C program (native/probe.c); for each `start` that forks a
child, which joins the target's namespaces, takes on its root, ids and capabilities and answers over a pipe.
`Probe.result` collects the answer and gives a child up that hangs, since a hostile container can put a FUSE or NFS
mount under any path. Nothing is ever written to a control file.

The children are forked, not executed: after they joined the mount namespace, every program and library there is the
container's. A child of the helper costs half a millisecond, one that is forked from Python six and more, for its pages
are copied. The caller must be single-threaded.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Self

from stockade.sandbox.linux import calls

#: seconds that a probe may take; a usual one takes 1 ms
TIMEOUT = 3.0
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native", "probe")
_LONGEST_ANSWER = 1 << 22
_MFD_EXEC, _F_ADD_SEALS, _ALL_SEALS = 0x10, 1033, 0xF
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
# the structs of native/probe.c
_REQUEST = struct.Struct("=2I 8I I 8I I 4I 4Q")
_HEAD = struct.Struct("=4i")
_DEVICE = struct.Struct("=2I2BH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the child takes on. Ids are the host's; `inside` are the same ids as the target's user namespace has them.

    `inside` serves an auditor without privilege, who can change ids only within the user namespace; None where an id
    has no name there. `label` is the AppArmor profile to change to, or empty.
    """

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    inside: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None
    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int
    no_new_privs: bool
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to ask. `join` has the CLONE_NEW* flags of the namespaces in which target and auditor differ.

    `write` and `read` are absolute paths of which each answer counts; `sweep` asks for all that the prober knows
    below /proc/sys as well, of which only the opened ones are told. `sockets` are paths whose permission is asked.
    `nodes` are mount points below /dev: each may have other flags than /dev itself.
    """

    pid: int
    join: int
    credentials: Credentials
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    sweep: bool = True
    sockets: tuple[str, ...] = ()
    nodes: frozenset[str] = frozenset()
    chroot: bool = True


@dataclass(frozen=True, slots=True)
class Device:
    """A device node that was listed. `usable`: the target's ids may open it and its mount is not nodev."""

    path: str
    block: bool
    major: int
    minor: int
    usable: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What the kernel said: errno by path, 0 where the file opened; `write` holds of the sweep only what opened.

    `peers` has the inode of the other end of each Unix socket of its network namespace, None where that is the
    host's or can't be asked. `errors` tells what could not be asked, by subject ("devices"), `label` whether the LSM
    label was taken on.
    """

    write: dict[str, int]
    read: dict[str, int]
    sockets: dict[str, bool]
    devices: tuple[Device, ...]
    peers: dict[int, int] | None
    errors: dict[str, str]
    label: bool


class ProbeError(Exception):
    """The probe gave no answer; the text says why."""


class Probe:
    """A running child. Use `result` once."""

    def __init__(self, pipe: int, read: Callable[[bytes], Answer]) -> None:
        """Take over the reading end of its pipe; `read` turns what comes from there into the answer."""
        self._pipe = pipe
        self._answer = read
        self._deadline = time.monotonic() + TIMEOUT

    def result(self) -> Answer:
        """Give the answer. Raises ProbeError when the target can't be joined or the child hung or was killed."""
        try:
            data = self._read()
        finally:
            self.close()
        if len(data) < _HEAD.size:
            raise ProbeError("the probe ended without an answer")
        error = _HEAD.unpack_from(data)[0]
        if error:
            raise ProbeError(f"the target's namespaces or credentials can't be taken on: {os.strerror(error)}")
        return self._answer(data)

    def close(self) -> None:
        """Give it up: its writing end breaks, and its own timer ends it."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _read(self) -> bytes:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN | select.POLLHUP)
        data = b""
        while True:
            # After the deadline, too, what is there is taken: the caller may have been busy with another target.
            if not poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
                raise ProbeError(
                    f"the probe did not answer within {TIMEOUT:.0f} seconds: a file system of its may hang"
                )
            piece = os.read(self._pipe, 1 << 16)
            if not piece:
                return data
            data += piece
            if len(data) > _LONGEST_ANSWER:
                raise ProbeError("the probe answered too much")


class Prober:
    """Starts probes. A context manager: at its end the helper ends, and what still runs of its children soon after.

    An answer that equals an earlier one is the very same object.
    """

    def __init__(self, sysctls: Iterable[str]) -> None:
        """Start the helper. `sysctls` are the files of a sweep, relative to /proc/sys."""
        self._sweep = _by_directory([f"/proc/sys/{name}" for name in sysctls])
        self._known: dict[object, Answer] = {}
        self._failure: OSError | None = None
        self._helper = 0
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._helper = _execute(other)
            self._socket.send(b"." + _strings(self._sweep))
        except OSError as error:
            self._failure = error  # told of each target that would have been asked
        finally:
            other.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the helper."""
        self._socket.close()
        if self._helper:
            os.waitpid(self._helper, 0)

    def start(self, request: Request) -> Probe:
        """Begin to measure. Raises OSError: ProcessLookupError when the target has gone, PermissionError."""
        if self._failure:
            raise OSError(self._failure.errno, self._failure.strerror, self._failure.filename)
        write, read = _by_directory(request.write), _by_directory(request.read)
        opened = [_pidfd(request.pid)]
        try:
            opened.append(os.open(f"/proc/{request.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            reading, writing = os.pipe2(os.O_CLOEXEC)
            opened.append(writing)
            try:
                socket.send_fds(self._socket, [_packed(request, write, read)], opened)
            except BaseException:
                os.close(reading)
                raise
        finally:
            for descriptor in opened:
                os.close(descriptor)
        swept = self._sweep if request.sweep else ()
        return Probe(reading, lambda data: self._read(data, (swept, write, read, request.sockets)))

    def _read(self, data: bytes, asked: tuple[tuple[str, ...], ...]) -> Answer:
        key = data, asked
        if key not in self._known:
            self._known[key] = _answer(data, *asked)
        return self._known[key]


def _pidfd(pid: int) -> int:
    """Open a process, or the thread that stands for one whose first thread has ended (Linux 6.9)."""
    try:
        return calls.pidfd_open(pid)
    except OSError as error:
        # EINVAL, on some kernels ENOENT: no first thread has this id
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    return calls.pidfd_open(pid, os.O_EXCL)  # PIDFD_THREAD


def _execute(control: socket.socket) -> int:
    """Start the helper from a sealed memfd, so that nothing that it joins can change the program. Gives its pid."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        program = os.memfd_create("probe", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        program = os.memfd_create("probe", flags)  # before Linux 6.3
    try:
        with open(PROGRAM, "rb") as file:
            os.sendfile(program, file.fileno(), 0, os.fstat(file.fileno()).st_size)
        fcntl.fcntl(program, _F_ADD_SEALS, _ALL_SEALS)
        os.set_inheritable(control.fileno(), True)
        pid = os.fork()
        if pid == 0:
            try:
                _keep_capabilities()
                os.execve(program, ["stockade-probe", str(control.fileno())], {})
            finally:
                os._exit(127)
        return pid
    finally:
        os.close(program)


def _keep_capabilities() -> None:
    """Keep the capabilities of an auditor that isn't root over execve(2), capabilities(7)."""
    effective, permitted, _ = calls.capget()
    if os.geteuid() == 0 or not permitted:
        return
    calls.capset(effective, permitted, permitted)
    for capability in range(64):
        if permitted >> capability & 1:
            calls.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


@lru_cache(maxsize=4096)
def _in_order(paths: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(path.rpartition("/")[0], []).append(path)
    return tuple([path for each in found.values() for path in each])


def _by_directory(paths: Iterable[str]) -> tuple[str, ...]:
    """Put paths in an order in which each directory comes once, in the order of its first file."""
    return _in_order(tuple(paths))


@lru_cache(maxsize=256)
def _strings(texts: tuple[str, ...]) -> bytes:
    return b"".join([os.fsencode(text) + b"\0" for text in texts])


def _packed(request: Request, write: tuple[str, ...], read: tuple[str, ...]) -> bytes:
    wanted = request.credentials
    inside = wanted.inside or ((0,) * 4, (0,) * 4, ())
    flags = request.chroot | request.sweep << 1 | (wanted.inside is not None) << 2 | wanted.no_new_privs << 3
    groups = (*wanted.groups, *inside[2])
    head = _REQUEST.pack(
        request.join, flags, *wanted.uids, *wanted.gids, len(wanted.groups), *inside[0], *inside[1], len(inside[2]),
        len(write), len(read), len(request.sockets), len(request.nodes),
        wanted.bounding, wanted.effective, wanted.inheritable, wanted.permitted,
    )  # fmt: skip
    texts = ((wanted.label,), write, read, request.sockets, tuple(sorted(request.nodes)))
    return b"".join((head, struct.pack(f"={len(groups)}I", *groups), *map(_strings, texts)))


def _answer(
    data: bytes, swept: tuple[str, ...], write: tuple[str, ...], read: tuple[str, ...], sockets: tuple[str, ...]
) -> Answer:
    """Read the answer of the helper; audit/native/probe.c has its layout. Raises ProbeError for one that was cut."""
    _, count, pairs, label = _HEAD.unpack_from(data)
    try:
        place = _HEAD.size
        opened, place = data[place : place + len(swept)], place + len(swept)
        written = struct.unpack_from(f"={len(write)}H", data, place)
        place += 2 * len(write)
        seen = struct.unpack_from(f"={len(read)}H", data, place)
        place += 2 * len(read)
        permitted, place = data[place : place + len(sockets)], place + len(sockets)
        devices = []
        for _ in range(max(0, count)):
            major, minor, block, usable, length = _DEVICE.unpack_from(data, place)
            place += _DEVICE.size
            path, place = os.fsdecode(data[place : place + length]), place + length
            devices.append(Device(path, bool(block), major, minor, bool(usable)))
        peers = struct.unpack_from(f"={2 * max(0, pairs)}I", data, place)
    except struct.error:
        raise ProbeError("the probe ended without an answer") from None
    error = {"devices": f"/dev: {os.strerror(-count)}"} if count < 0 and -count != errno.ENOENT else {}
    return Answer(
        write={path: 0 for path, each in zip(swept, opened, strict=True) if each}
        | dict(zip(write, written, strict=True)),
        read=dict(zip(read, seen, strict=True)),
        sockets={path: bool(each) for path, each in zip(sockets, permitted, strict=True)},
        devices=tuple(devices),
        peers=None if pairs < 0 else dict(zip(peers[::2], peers[1::2], strict=True)),
        errors=error,
        label=bool(label),
    )
