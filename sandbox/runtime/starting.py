"""`start`: the word to a process that stands ready, and what it answers."""

from __future__ import annotations

import _socket
import os
from _struct import Struct

from stockade.errors import StockadeError
from stockade.sandbox.runtime import console, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.state import Container

FAILED, HOOK_SAID, LISTENER = 3, 7, 8  # native/plan.h
ANSWER = "STOCKADE_RUNTIME_ANSWER"  # front/front.c
HOOK_STEP = "run the startContainer hook"  # steps_hooks.Hook
_answer = Struct("<IIiI")


def start(container: Container) -> None:
    """Let the program begin; return when execve(2) has succeeded. Raises StockadeError where it has not.

    The container's lock is held by the caller.
    """
    connection = _answered()
    status = container.status()
    if connection is None and status != state.CREATED:
        reasons = {
            state.RUNNING: "cannot start a container that is already running",
            state.PAUSED: "cannot start a container that is paused",
            state.STOPPED: "cannot start a container that has stopped",
        }
        raise StockadeError(reasons.get(status, f"cannot start a container in the state {status}"))
    answer, said = _tell(container, connection)
    try:
        os.unlink(f"{container.path}/{state.SOCKET}")
    except FileNotFoundError:
        pass
    if answer:
        kind, step, error, _ = _answer.unpack(answer)
        if kind == FAILED:
            raise _failure(container, step, error, said)


def _answered() -> _socket.socket | None:
    """Give the connection on which sandbox/front has said go already and was answered, if it has."""
    number = os.environ.pop(ANSWER, "")
    if not number.isdecimal():
        return None
    os.set_inheritable(int(number), False)
    return _socket.socket(fileno=int(number))


def _tell(container: Container, connection: _socket.socket | None) -> tuple[bytes, bytes]:
    """Say go, and give what comes before the end: nothing when the program has begun; and what a hook said."""
    said_go = connection is not None
    if connection is None:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        if not said_go:
            console.at(connection, f"{container.path}/{state.SOCKET}", connect=True)
            connection.send(b"g")
        answer, said = _receive(connection)
        while answer and _answer.unpack(answer)[0] in {HOOK_SAID, LISTENER}:
            if _answer.unpack(answer)[0] == LISTENER:
                _hand_over(container, _answer.unpack(answer)[3])
                connection.send(b"g")
            answer, more = _receive(connection)
            said = said or more
        return answer, said
    except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError) as error:
        raise StockadeError(
            "cannot start a container that has stopped", hint="its process was killed before it could begin"
        ) from error
    finally:
        connection.close()


def _hand_over(container: Container, number: int) -> None:
    from stockade.sandbox.runtime import listener
    from stockade.sandbox.runtime.creating import oci_state

    pidfd = container.pidfd()
    if pidfd < 0:
        raise StockadeError("cannot start a container that has stopped")
    try:
        section = container.config()["linux"]["seccomp"]
        told = oci_state(container, state.RUNNING, container.pid)
        listener.hand_over(section, told, container.pid, pidfd, number)
    finally:
        os.close(pidfd)


def _receive(connection: _socket.socket) -> tuple[bytes, bytes]:
    """Take one message; a descriptor that comes with it is a file with what a hook wrote."""
    answer, ancillary, _, _ = connection.recvmsg(_answer.size, 64, _socket.MSG_CMSG_CLOEXEC)
    said = b""
    for _level, _type, rights in ancillary:
        descriptor = int.from_bytes(rights[:4], "little")
        said = os.pread(descriptor, 1024, 0)
        os.close(descriptor)
    return answer, said


def _failure(container: Container, step: int, error: int, said: bytes) -> StockadeError:
    """Name what failed, as `create` wrote the steps down."""
    from stockade.sandbox.remedies import cannot_execute
    from stockade.sandbox.steps_hooks import failed

    last = container.data.get("last") or {}
    names, place = last.get("steps") or [], step - int(last.get("first") or 0)
    if not 0 <= place < len(names):
        return cannot_execute(str(last.get("program") or ""), error)
    if names[place].startswith(HOOK_STEP):
        _, _, path = names[place].removeprefix(HOOK_STEP).partition(" ")
        hooks = [number for number, name in enumerate(names) if name.startswith(HOOK_STEP)]
        return StockadeError(failed("startContainer", hooks.index(place), path, error, said))
    return StockadeError(f"step {step + 1}, {names[place]}: {os.strerror(error)}")


def poststart(container: Container) -> None:
    """Run the hooks that belong after the start."""
    from stockade.sandbox.runtime import hooks
    from stockade.sandbox.runtime.creating import oci_state

    found = container.spec().hooks
    if found is not None and found.poststart:
        hooks.run_hooks(found.poststart, oci_state(container, state.RUNNING, container.pid), "poststart")
