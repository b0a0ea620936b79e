"""The first process of a world (world.py): starts what it is asked to, hands back exit codes, reaps everyone's orphans.

Asked over a listening socket (the first argument is its descriptor), one connection a command: one message of JSON
{"argv", "env", "cwd", "user": [uid, gid] or null} with the three standard descriptors, answered by one JSON number
when the command ends: its exit code, or minus its signal, as subprocess has it. Who hangs up first has the command's
process group killed. It ends when the pipe of the second argument does, which its maker holds; being pid 1 of a pid
namespace, its end is the end of everything in the world.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import termios
from typing import Any


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    text, control, _, _ = connection.recvmsg(1 << 20, socket.CMSG_SPACE(3 * 4))
    descriptors = array.array("i")
    for _, _, data in control:
        descriptors.frombytes(data)
    return json.loads(text), list(descriptors)


def _start(connection: socket.socket) -> subprocess.Popen[bytes] | None:
    asked, standard = _receive(connection)
    user, group = asked["user"] or (None, None)

    def take_terminal() -> None:
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    try:
        return subprocess.Popen(
            asked["argv"],
            env=asked["env"],
            cwd=asked["cwd"],
            stdin=standard[0],
            stdout=standard[1],
            stderr=standard[2],
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - this process has no threads
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )
    except OSError as error:
        os.write(standard[2], f"agent: {error}\n".encode())
        connection.sendall(b"127")
        connection.close()
        return None
    finally:
        for descriptor in standard:
            os.close(descriptor)


def _reap(running: dict[int, tuple[subprocess.Popen[bytes], socket.socket]], events: selectors.BaseSelector) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in running:
            process, connection = running.pop(pid)
            process.returncode = os.waitstatus_to_exitcode(status)
            try:
                connection.sendall(str(process.returncode).encode())
            except OSError:  # nobody waits for it any longer
                pass
            events.unregister(connection)
            connection.close()


def serve(listener: socket.socket, lifeline: int) -> None:
    """Start commands until nobody holds the other end of the lifeline."""
    events = selectors.DefaultSelector()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer)
    events.register(listener, selectors.EVENT_READ)
    events.register(reader, selectors.EVENT_READ)
    events.register(lifeline, selectors.EVENT_READ)
    running: dict[int, tuple[subprocess.Popen[bytes], socket.socket]] = {}
    while True:
        for key, _ in events.select():
            if key.fileobj == reader:
                os.read(reader, 512)
                _reap(running, events)
            elif key.fileobj == lifeline:
                return
            elif key.fileobj is listener:
                connection, _ = listener.accept()
                process = _start(connection)
                if process is not None:
                    running[process.pid] = (process, connection)
                    events.register(connection, selectors.EVENT_READ, process)
            elif key.data.pid in running:
                os.killpg(key.data.pid, signal.SIGKILL)
                running.pop(key.data.pid)
                key.data.returncode = -signal.SIGKILL
                events.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
