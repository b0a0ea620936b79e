"""Containers that left a state on disk: Stockade's own, and those of runc, crun and stockade-runtime for other engines.

Stockade's lie in /run/stockade/ID/state.json and the same in each user's own directory. The auditor knows them as
it knows any other engine's: the state gives a name, an engine and what was declared; everything that decides comes
from the kernel. What lies in a user's directory is that user's word, and is believed for that user's processes
only.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from stockade.sandbox.linux import calls, namespaces, process
from stockade.sandbox.linux.statx import AT_FDCWD

#: what a container may be called
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LARGEST = 1 << 22


@dataclass(frozen=True, slots=True)
class State:
    """A container that ran when it was read: id, name (without one the id's first twelve digits), first process.

    `path` is the state.json, `data` all of it, `uid` the owner, whose word it is. `bundle` has the config.json.
    """

    id: str
    name: str
    pid: int
    path: str
    data: dict[str, Any] = field(compare=False, repr=False)
    engine: str = "stockade"
    bundle: str = ""
    uid: int = 0

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


def states(remote: Callable[[str], bool] = lambda _: False) -> tuple[State, ...]:
    """Read every state whose process runs. A directory or file that isn't its owner's, or no state, is passed over.

    `remote` says of a path whether its file system may never answer.
    """
    found: dict[str, State] = {}
    for directory, uid in directories():
        if remote(directory):
            continue
        for state in _read(directory, uid, "state.json", _checked):
            found.setdefault(state.path, state)
    for directory, uid, file in runtimes():
        if not remote(directory):
            for state in _read(directory, uid, file, _runtime):
                found.setdefault(state.path, state)
    return tuple(found.values())


def runtimes() -> Iterator[tuple[str, int, str]]:
    """Give the directories in which runtimes keep their containers, each with its owner and the name of a state."""
    uid = os.geteuid()
    for directory in ("/run/stockade-runtime", "/run/runc", *_ENGINES):
        yield directory, 0, "state.json"
    # Docker 23 and later name the directory after the runtime as daemon.json calls it
    for name in _names("/run/docker"):
        if name.startswith("runtime-") and name != "runtime-runc":
            yield f"/run/docker/{name}/moby", 0, "state.json"
    yield "/run/crun", 0, "status"
    for user in _numbers("/run/user") if uid == 0 else [uid]:
        yield f"/run/user/{user}/stockade-runtime", user, "state.json"
        yield f"/run/user/{user}/runc", user, "state.json"
        yield f"/run/user/{user}/crun", user, "status"


def name_of(engine: str, identity: str, parent: int = 0) -> str | None:
    """Give the name that Docker keeps for a container, or Podman: conmon, its `parent`, is told it.

    A user's conmon says what that user wants; a name is no more than a name.
    """
    name: object = None
    if engine == "docker":
        name = (load(f"/var/lib/docker/containers/{identity}/config.v2.json", 0) or {}).get("Name")
    elif engine in {"podman", "cri-o"} and parent > 1:
        name = _conmon(parent, identity)
    plain = name.lstrip("/") if isinstance(name, str) else ""
    return plain if NAME.fullmatch(plain) else None


def _conmon(pid: int, identity: str) -> str | None:
    options = _options_of_conmon(pid)
    return options.get("-n") if options.get("-c") == identity else None


def started_by(parent: int) -> tuple[str, str] | None:
    """Give engine and id of a container whose first process is conmon's child; what conmon says is its owner's word."""
    options = _options_of_conmon(parent) if parent > 1 else {}
    identity = options.get("-c", "")
    if not re.fullmatch(r"[0-9a-f]{64}", identity):
        return None
    return "podman" if options.get("--exit-command", "").endswith("podman") else "cri-o", identity


def _options_of_conmon(pid: int) -> dict[str, str]:
    try:
        words = process.cmdline(pid)
    except OSError:
        return {}
    # the first of several --exit-command-arg may be such a word, too
    return dict(reversed(tuple(pairwise(words)))) if words and words[0].rpartition("/")[2] == "conmon" else {}


def configuration(engine: str, identity: str, state: State | None) -> tuple[str, dict[str, Any]] | None:
    """Give path and content of the config.json that a container was started from, None where none is known.

    What a user's runtime kept must be that user's: the owner can write what is not so into it, of the own container.
    """
    if state and state.bundle:
        path = f"{state.bundle}/config.json"
        data = load_beneath(state.bundle, "config.json", state.uid) if state.uid else load(path, 0)
        if data is not None:
            return path, data
    for pattern in _BUNDLES.get(engine, ()):
        path = pattern.format(id=identity) + "/config.json"
        data = load(path, 0)
        if data is not None:
            return path, data
    return None


def load_beneath(directory: str, name: str, uid: int) -> dict[str, Any] | None:
    """Read a JSON object from a file of this owner's in a directory of the owner's; no link on the way is followed."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    limits = calls.RESOLVE_NO_SYMLINKS | calls.RESOLVE_NO_MAGICLINKS
    try:
        top = calls.openat2(AT_FDCWD, directory, flags, resolve=limits)
    except (OSError, ValueError):
        return None
    try:
        return load(name, uid, top) if os.fstat(top).st_uid == uid else None
    finally:
        os.close(top)


_TASKS = "/run/containerd/io.containerd.runtime.v2.task"
_BUNDLES = {
    "docker": (f"{_TASKS}/moby/{{id}}", "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{id}"),
    "containerd": (f"{_TASKS}/k8s.io/{{id}}", f"{_TASKS}/default/{{id}}"),
    "kubernetes": (f"{_TASKS}/k8s.io/{{id}}",),
    "podman": ("/var/lib/containers/storage/overlay-containers/{id}/userdata",),
    "cri-o": ("/run/containers/storage/overlay-containers/{id}/userdata",),
}
_Check = Callable[[dict[str, Any], str, str, int], "State | None"]


def _read(directory: str, uid: int, file: str, check: _Check) -> Iterator[State]:
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if os.fstat(top).st_uid != uid:
            return
        for identity in sorted(os.listdir(top)):
            data = load(f"{identity}/{file}", uid, top) if identity != "names" else None
            state = check(data, f"{directory}/{identity}/{file}", identity, uid) if data else None
            if state:
                yield state
    finally:
        os.close(top)


def load(path: str, uid: int, top: int | None = None) -> dict[str, Any] | None:
    """Read a JSON object from a file of this owner's, None where there is none: no link, no FIFO, nothing huge.

    Below the directory `top` no other file system is entered: a user's may never answer.
    """
    # O_NONBLOCK: a FIFO there must not hang the auditor, who may be root in a user's directory
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    limits = calls.RESOLVE_NO_SYMLINKS | calls.RESOLVE_BENEATH | calls.RESOLVE_NO_XDEV
    try:
        descriptor = os.open(path, flags) if top is None else calls.openat2(top, path, flags, resolve=limits)
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
    pid, name, bundle = data.get("pid"), data.get("name") or identity[:12], data.get("bundle")
    if not isinstance(name, str) or not NAME.fullmatch(name) or not _runs(pid, data.get("startTime"), uid):
        return None
    return State(identity, name, int(str(pid)), path, data, bundle=bundle if isinstance(bundle, str) else "", uid=uid)


def _runtime(data: dict[str, Any], path: str, identity: str, uid: int) -> State | None:
    """Read a state in the words of stockade-runtime, runc or crun: which one wrote it, its content tells."""
    if not NAME.fullmatch(identity):
        return None
    if "init_process_pid" in data:
        engine, pid, start = "runc", data.get("init_process_pid"), data.get("init_process_start")
    elif "process-start-time" in data:
        engine, pid, start = "crun", data.get("pid"), data.get("process-start-time")
    else:
        engine, pid, start = "stockade-runtime", data.get("pid"), data.get("start")
        if not isinstance(start, int):
            return None
    if not _runs(pid, start, uid):
        return None
    bundle = _bundle(engine, data, path)
    return State(identity, identity, int(str(pid)), path, data, engine, bundle, uid)


def _bundle(engine: str, data: dict[str, Any], path: str) -> str:
    if engine == "stockade-runtime":
        return path.rpartition("/")[0]  # the configuration as it was when the container was created
    if engine == "crun":
        return data["bundle"] if isinstance(data.get("bundle"), str) else ""
    config = data.get("config")
    labels = config.get("labels") if isinstance(config, dict) else None
    return next((label[7:] for label in labels or () if isinstance(label, str) and label.startswith("bundle=")), "")


def _runs(pid: object, start: object, uid: int) -> bool:
    """Say whether a process is the one that was meant, and its owner's."""
    if not isinstance(pid, int) or pid <= 1:
        return False
    try:
        if isinstance(start, int) and start > 0 and process.start_time(pid) != start:
            return False  # another process has the number now
        os.stat(f"/proc/{pid}")
        return uid == 0 or _belongs(pid, uid)
    except OSError:
        return False


# containerd's shims keep each namespace of theirs apart, whatever the runtime
_ENGINES = (
    "/run/docker/runtime-runc/moby", "/run/containerd/runc/k8s.io", "/run/containerd/runc/default",
    "/run/containerd/runc/moby",
)  # fmt: skip


def _belongs(pid: int, uid: int) -> bool:
    """Say whether a process is a user's: by its id, or since the user made its user namespace."""
    if os.stat(f"/proc/{pid}").st_uid == uid or uid in process.status(pid).uids:
        return True
    descriptor = namespaces.open(pid, "user")
    try:
        return namespaces.owner_uid(descriptor) == uid
    finally:
        os.close(descriptor)
