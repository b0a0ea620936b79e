"""What a running Docker or Podman says of a container by its API: an addition, never needed.

The kernel and the files say what decides. The API knows names where the engine keeps its files elsewhere. Only GET is
used, only on a socket that root owns, with a timeout; an engine that doesn't answer isn't asked again.
"""

import http.client
import json
import os
import re
import socket
import stat
from typing import Any

#: engine → where its socket is
_SOCKETS = {"docker": "/run/docker.sock", "podman": "/run/podman/podman.sock"}
_LARGEST = 1 << 22
_SECONDS = 0.5
_ID = re.compile(r"[0-9a-f]{12,64}")


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


class Engines:
    """The engines of the host by their APIs. `sockets` are their places, `owner` the uid that has to own them."""

    def __init__(self, sockets: dict[str, str] | None = None, owner: int = 0) -> None:
        self._sockets = dict(_SOCKETS if sockets is None else sockets)
        self._owner = owner

    def container(self, engine: str, identity: str) -> dict[str, Any] | None:
        """Give what the engine's inspect says of a container; None where nothing is known or nobody answers."""
        path = self._sockets.get(engine)
        if path is None or not _ID.fullmatch(identity):
            return None
        try:
            status = os.lstat(path)
            if not stat.S_ISSOCK(status.st_mode) or status.st_uid != self._owner:
                return None
            connection = _Connection(path)
            try:
                connection.request("GET", f"/containers/{identity}/json")
                answer = connection.getresponse()
                data = answer.read(_LARGEST)
            finally:
                connection.close()
            content = json.loads(data) if answer.status == http.client.OK else None
        except (OSError, ValueError, RecursionError, http.client.HTTPException):
            self._sockets.pop(engine)
            return None
        return content if isinstance(content, dict) else None

    def name(self, engine: str, identity: str) -> str | None:
        """Give the name of a container, without the slash that Docker puts before it."""
        name = (self.container(engine, identity) or {}).get("Name")
        return name.removeprefix("/") if isinstance(name, str) else None
