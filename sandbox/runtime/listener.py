"""The listener of a filter with SCMP_ACT_NOTIFY goes to linux.seccomp.listenerPath, runtime-spec config-linux.md."""

from __future__ import annotations

import _socket
import os
from _struct import Struct

from stockade.errors import StockadeError
from stockade.sandbox.linux import calls
from stockade.sandbox.oci import lean_json
from stockade.sandbox.runtime import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def hand_over(section: dict[str, Any], state: bytes, pid: int, pidfd: int, number: int) -> None:
    """Take descriptor `number` of a process and send it with the ContainerProcessState.

    `section` is linux.seccomp, `state` the container's JSON. Raises StockadeError: the process must not go on then, as
    each call that is notified of would hang.
    """
    path = section.get("listenerPath") or ""
    head = f'{{"ociVersion":"1.2.0","fds":["seccompFd"],"pid":{pid},"metadata":'
    told = head.encode() + lean_json.dumps(section.get("listenerMetadata") or "").encode() + b',"state":' + state + b"}"
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, console.PATIENCE)
    listener = -1
    try:
        listener = calls.pidfd_getfd(pidfd, number)
        console.at(connection, path, connect=True)
        connection.sendmsg([told], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, Struct("<i").pack(listener))])
    except OSError as error:
        raise StockadeError(
            f"the seccomp listener can't be handed over: {error.strerror}: {path}",
            hint="an agent must listen on the unix socket that linux.seccomp.listenerPath names",
        ) from error
    finally:
        connection.close()
        if listener >= 0:
            os.close(listener)
