"""Which control files open with exactly a target's credentials: asked of the kernel, by a child that becomes the target.

The parent half. `start` forks a child that joins the target's namespaces, takes its root, ids and capabilities
(probe_child) and answers over a pipe; `Probe.result` collects the answer and kills a child that hangs, since a hostile
container can put a FUSE or NFS mount under any path. Nothing is ever written to a control file, see probe_child.

The child is forked, not executed: after it joined the mount namespace, every program and library there is the
container's. The caller must be single-threaded.
"""

import json
import os
import select
import signal
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stockade.sandbox.linux import calls

#: seconds that a probe may take; a usual one takes 2 ms
TIMEOUT = 2.0
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

    `named` are the files of which each answer counts, `sweep` those of which only the opened ones do: paths relative
    to a mount point of procfs, sysfs or cgroupfs, by mount point ("" is the mount point itself, for a file mount).
    `read` are opened for reading. `sockets` are paths whose permission is asked, `devices` directories to be listed.
    """

    pid: int
    join: int
    credentials: Credentials
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    sweep: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    read: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    sockets: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("/dev",)
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

    `errors` tells what could not be asked, by subject ("devices"), `label` whether the LSM label was taken on.
    """

    write: dict[str, int]
    read: dict[str, int]
    sockets: dict[str, bool]
    devices: tuple[Device, ...]
    errors: dict[str, str]
    label: bool


class ProbeError(Exception):
    """The probe gave no answer; the text says why."""


class Probe:
    """A running child. Use `result` once; it always ends and reaps the child."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pipe = pipe
        self._deadline = time.monotonic() + TIMEOUT

    def result(self) -> Answer:
        """Give the answer. Raises ProbeError when the target can't be joined or the child hung or was killed."""
        try:
            data = self._read()
        finally:
            os.close(self._pipe)
            self._end()
        try:
            answer = json.loads(data)
        except ValueError:
            raise ProbeError("the probe ended without an answer") from None
        if "error" in answer:
            raise ProbeError(str(answer["error"]))
        return _answer(answer)

    def _read(self) -> bytes:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN | select.POLLHUP)
        data = b""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise ProbeError(f"the probe did not answer within {TIMEOUT:.0f} seconds: a file system there hangs")
            piece = os.read(self._pipe, 1 << 16)
            if not piece:
                return data
            data += piece
            if len(data) > _LONGEST_ANSWER:
                raise ProbeError("the probe answered too much")

    def _end(self) -> None:
        # A child that ended by itself is a zombie until waitpid, so that its pid can't be another's.
        os.kill(self.pid, signal.SIGKILL)
        for _ in range(200):
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.0005)
        # A child that sleeps uninterruptibly can't be waited for; it holds nothing of ours but its address space.


def _answer(answer: dict[str, Any]) -> Answer:
    return Answer(
        write=answer["write"],
        read=answer["read"],
        sockets=answer["sockets"],
        devices=tuple([Device(*device) for device in answer["devices"]]),
        errors=answer["errors"],
        label=answer["label"],
    )


def start(request: Request) -> Probe:
    """Fork a child that measures. Raises OSError: ProcessLookupError when the target has gone, PermissionError."""
    # Loaded before the fork: afterwards nothing may be imported, for the files are the container's.
    from stockade.audit import probe_child

    pidfd = calls.pidfd_open(request.pid)
    opened = [pidfd]
    try:
        root = os.open(f"/proc/{request.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.append(root)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        opened.append(writing)
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # Python 3.12 warns of a fork with threads: that is a bug
            child = os.fork()
        if child == 0:
            probe_child.run(request, pidfd, root, writing)  # never returns
    finally:
        close(opened)
    return Probe(child, reading)


def close(descriptors: Iterable[int]) -> None:
    """Close each descriptor."""
    for descriptor in descriptors:
        os.close(descriptor)
