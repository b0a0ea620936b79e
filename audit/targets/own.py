"""Stockade's own containers, from /run/stockade/ID/state.json and the same in each user's own directory.

The auditor knows them as it knows any other engine's: the state gives a name, an engine and what was declared;
everything that decides comes from the kernel. What lies in a user's directory is that user's word, and is believed
for that user's processes only.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stockade.sandbox.linux import namespaces, process

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LARGEST = 1 << 22


@dataclass(frozen=True, slots=True)
class State:
    """A container that ran when it was read: id, name (without one the id's first twelve digits), first process.

    `path` is the state.json, `data` all of it.
    """

    id: str
    name: str
    pid: int
    path: str
    data: dict[str, Any] = field(compare=False, repr=False)

    @property
    def mode(self) -> str:
        """The mode it was started in, or empty."""
        annotations = self.data.get("annotations")
        mode = annotations.get("org.stockade.mode") if isinstance(annotations, dict) else None
        return mode if isinstance(mode, str) else ""


def directories() -> tuple[tuple[str, int], ...]:
    """Give the directories that may hold states, each with its owner's uid: root's, one's own, as root everyone's."""
    uid = os.geteuid()
    found = [("/run/stockade", 0)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and uid:
        found.append((f"{runtime}/stockade", uid))
    users = _numbers("/run/user") if uid == 0 else [uid]
    found += [(f"/run/user/{user}/stockade", user) for user in users]
    found += [(f"/tmp/{name}", int(name[9:])) for name in _names("/tmp") if re.fullmatch(r"stockade-\d{1,10}", name)]
    return tuple(dict.fromkeys(found))


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _numbers(path: str) -> list[int]:
    return [int(name) for name in _names(path) if name.isdigit()]


def states() -> tuple[State, ...]:
    """Read every state whose process runs. A directory or file that isn't its owner's, or no state, is passed over."""
    found: dict[str, State] = {}
    for directory, uid in directories():
        for state in _read(directory, uid):
            found.setdefault(state.path, state)
    return tuple(found.values())


def _read(directory: str, uid: int) -> Iterator[State]:
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if os.fstat(top).st_uid != uid:
            return
        for identity in sorted(os.listdir(top)):
            data = _state(top, f"{identity}/state.json", uid) if identity != "names" else None
            state = _checked(data, f"{directory}/{identity}/state.json", identity, uid) if data else None
            if state:
                yield state
    finally:
        os.close(top)


def _state(top: int, path: str, uid: int) -> dict[str, Any] | None:
    try:
        # O_NONBLOCK: a FIFO there must not hang the auditor, who may be root in a user's directory
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=top)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != uid or status.st_size > _LARGEST:
            return None
        data = json.loads(os.read(descriptor, _LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(descriptor)
    return data if isinstance(data, dict) else None


def _checked(data: dict[str, Any], path: str, identity: str, uid: int) -> State | None:
    pid, name = data.get("pid"), data.get("name") or identity[:12]
    start = next((data[key] for key in ("startTime", "start") if isinstance(data.get(key), int)), None)
    if not isinstance(pid, int) or pid <= 1 or not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    try:
        if start is not None and process.start_time(pid) != start:
            return None  # another process has the number now
        if uid != 0 and not _belongs(pid, uid):
            return None
        os.stat(f"/proc/{pid}")
    except OSError:
        return None
    return State(identity, name, pid, path, data)


def _belongs(pid: int, uid: int) -> bool:
    """Say whether a process is a user's: by its id, or since the user made its user namespace."""
    if os.stat(f"/proc/{pid}").st_uid == uid or uid in process.status(pid).uids:
        return True
    descriptor = namespaces.open(pid, "user")
    try:
        return namespaces.owner_uid(descriptor) == uid
    finally:
        os.close(descriptor)
