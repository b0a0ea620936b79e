"""The terminal of a container goes to whoever listens on --console-socket, as runc's docs/terminals.md has it."""

from __future__ import annotations

import _socket
import os
from _struct import Struct

from stockade.errors import StockadeError, UsageError

#: struct timeval
PATIENCE = Struct("@ll").pack(10, 0)


def check(path: str | None, *, terminal: bool, detached: bool) -> None:
    """Raise UsageError where the socket and the terminal don't go together, in runc's words."""
    if path and not (terminal and detached):
        raise UsageError(
            "cannot use console socket if the runtime will not detach or allocate tty",
            hint="leave --console-socket out, or set process.terminal and detach",
        )
    if detached and terminal and not path:
        raise UsageError(
            "cannot allocate tty if the runtime will detach without setting console socket",
            hint="pass --console-socket with the path of a listening unix socket",
        )


def send(path: str, master: int) -> None:
    """Send the master of a pty with SCM_RIGHTS, its name as the message. Raises StockadeError."""
    name = b"/dev/ptmx"
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, Struct("<i").pack(master))]
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    # connect(2) waits for one that has enough in its backlog, else without end
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, PATIENCE)
    try:
        at(connection, path, connect=True)
        connection.sendmsg([name], rights)
    except OSError as error:
        raise StockadeError(
            f"the terminal can't be sent to --console-socket: {error.strerror}: {path}",
            hint="something must listen on the socket, and take one message",
        ) from error
    finally:
        connection.close()


def at(socket: _socket.socket, path: str, *, connect: bool) -> None:
    """Bind or connect a socket to a path of any length: sun_path holds 107 bytes, unix(7)."""
    if len(os.fsencode(path)) < 108:
        (socket.connect if connect else socket.bind)(path)
        return
    head, _, tail = path.rpartition("/")
    directory = os.open(head or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        (socket.connect if connect else socket.bind)(f"/proc/self/fd/{directory}/{tail}")
    finally:
        os.close(directory)
