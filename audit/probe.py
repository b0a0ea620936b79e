"""Which control files open with exactly a target's credentials: asked of the kernel by a child that becomes it.

The parent half. A `Prober` forks a small helper once; for each `start` that forks a child, which joins the target's
namespaces, takes on its root, ids and capabilities (probe_child) and answers over a pipe. `Probe.result` collects
the answer and gives a child up that hangs, since a hostile container can put a FUSE or NFS mount under any path.
Nothing is ever written to a control file.

The children are forked, not executed: after they joined the mount namespace, every program and library there is the
container's. The helper is there since a fork of the auditor costs in proportion to its memory, 0.4 ms at the start
and ten times that with the facts of a thousand containers. The caller must be single-threaded.
"""

import json
import os
import pickle
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from stockade.sandbox.linux import calls

#: seconds that a probe may take; a usual one takes 3 ms
TIMEOUT = 3.0
_LONGEST_ANSWER = 1 << 22


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

    def __init__(self, pipe: int) -> None:
        """Take over the reading end of its pipe."""
        self._pipe = pipe
        self._deadline = time.monotonic() + TIMEOUT

    def result(self) -> Answer:
        """Give the answer. Raises ProbeError when the target can't be joined or the child hung or was killed."""
        try:
            data = self._read()
        finally:
            self.close()
        try:
            answer = json.loads(data)
        except ValueError:
            raise ProbeError("the probe ended without an answer") from None
        if "error" in answer:
            raise ProbeError(str(answer["error"]))
        return _answer(answer)

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


def _answer(answer: dict[str, Any]) -> Answer:
    return Answer(
        write=answer["write"],
        read=answer["read"],
        sockets=answer["sockets"],
        devices=tuple([Device(*device) for device in answer["devices"]]),
        peers=dict(answer["peers"]) if answer["peers"] is not None else None,
        errors=answer["errors"],
        label=answer["label"],
    )


class Prober:
    """Starts probes. A context manager: at its end the helper ends, and with it what still runs of its children."""

    def __init__(self, sysctls: Iterable[str]) -> None:
        """Fork the helper. `sysctls` are the files of a sweep, relative to /proc/sys."""
        # Loaded before the fork: afterwards nothing may be imported, for the files are the container's.
        from stockade.audit import probe_child

        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._helper = os.fork()
        if self._helper == 0:
            probe_child.serve(other.detach(), tuple(sysctls))  # never returns
        other.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the helper."""
        self._socket.close()
        os.waitpid(self._helper, 0)

    def start(self, request: Request) -> Probe:
        """Begin to measure. Raises OSError: ProcessLookupError when the target has gone, PermissionError."""
        opened = [calls.pidfd_open(request.pid)]
        try:
            opened.append(os.open(f"/proc/{request.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            reading, writing = os.pipe2(os.O_CLOEXEC)
            opened.append(writing)
            try:
                socket.send_fds(self._socket, [pickle.dumps(request)], opened)
            except BaseException:
                os.close(reading)
                raise
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return Probe(reading)
