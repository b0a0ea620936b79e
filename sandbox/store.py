"""Containers on disk: what a supervisor means to make is written down before it is made, so that `gc` can undo it.

A container is a directory `ID` with `state.json` (OCI's state and a little more) and `lock`, which the supervisor holds
for as long as it lives: the kernel lets go of a lock whatever way a process ends, so a lock that can be had belongs to
no one. `names/NAME` is a link to the ID. Only its owner may enter the tree.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from stockade.errors import StockadeError
from stockade.sandbox.linux import process
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OCI_VERSION = "1.1.0"


def directory(uid: int | None = None) -> str:
    """Give the directory of this user's containers: /run/stockade for root, below XDG_RUNTIME_DIR for others."""
    uid = os.geteuid() if uid is None else uid
    if uid == 0:
        return "/run/stockade"
    runtime = os.environ.get("XDG_RUNTIME_DIR") if uid == os.geteuid() else None
    for base in (runtime, f"/run/user/{uid}"):
        if base and _owned(base, uid):
            return f"{base}/stockade"
    return f"/tmp/stockade-{uid}"


def _owned(path: str, uid: int) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid


def _private(path: str) -> str:
    """Make the directory, or check that it is ours alone: someone else may have put another there, or a link."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise StockadeError(
                f"{path} is not a directory of this user alone", hint=f"look at it, then remove it: rm -r {path}"
            ) from None
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: str, error: OSError) -> StockadeError:
    full = "make room there, or remove what has ended with `stockade gc`"
    hints = {
        errno.ENOSPC: full,
        errno.EDQUOT: full,
        errno.EROFS: "mount it writable, or as a user without privilege set XDG_RUNTIME_DIR",
    }
    return StockadeError(
        f"the container's record can't be written: {error.strerror}: {path}",
        hint=hints.get(error.errno or 0, "as a user without privilege set XDG_RUNTIME_DIR"),
    )


def dumps(value: object) -> str:
    """Give JSON text. Importing `json` costs 7 ms, for its decoder."""
    if isinstance(value, str):
        if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
            return f'"{value}"'  # needs no escape, and the encoder costs a third of a millisecond
        from _json import encode_basestring_ascii

        return encode_basestring_ascii(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join([f"{dumps(str(key))}: {dumps(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join([dumps(item) for item in value]) + "]"
    raise TypeError(f"not JSON: {value!r}")


#: locks that this process holds
_locks: set[int] = set()


def _forget() -> None:
    """Close them in a fork of this process: the lock lasts while a copy is open, and would outlive its holder."""
    for lock in _locks:
        os.close(lock)
    _locks.clear()


os.register_at_fork(after_in_child=_forget)


def _locked(root: str, how: int) -> int:
    """Open the directory and lock it: nobody may look at a record that is being made, or take the same name.

    The caller closes it soon.
    """
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(top, how)
    except BaseException:
        os.close(top)
        raise
    return top


class Entry:
    """One container's directory, held by its supervisor."""

    lock = -1

    def __del__(self) -> None:
        """Remove one that an interrupt lost, or where it has control groups let go of it: `gc` sees to it then."""
        if self.lock in _locks:
            groups = self.state.get("cgroups")
            made = isinstance(groups, list) and any(os.path.isdir(str(group)) for group in groups)
            self.release() if made else self.remove()

    def __init__(self, identity: str, name: str, state: dict[str, object]) -> None:
        """Make the directory, take the lock and the name, write the intent. Raises StockadeError for a name in use."""
        self.root = _private(directory())
        if name:
            from stockade.sandbox import values

            values.name(name)  # of a caller in Python, whom no parser has checked: a name is a file's name
        self.identity, self.name, self.state = identity, name, state
        self.path = f"{self.root}/{identity}"
        try:
            self._make(name)
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def _make(self, name: str) -> None:
        top = _locked(self.root, fcntl.LOCK_EX if name else fcntl.LOCK_SH)
        try:
            os.mkdir(self.path, 0o700)
            self.lock = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            _locks.add(self.lock)
            fcntl.flock(self.lock, fcntl.LOCK_EX)
            self.write()
            if name:
                self._take_name(name)  # written down before, so that gc removes it too
        except BaseException:
            self._remove()
            raise
        finally:
            os.close(top)

    def _take_name(self, name: str) -> None:
        link = f"{_private(f'{self.root}/names')}/{name}"
        for _ in range(3):
            try:
                os.symlink(f"../{self.identity}", link)
            except FileExistsError:
                try:
                    other = os.readlink(link).rpartition("/")[2]
                except FileNotFoundError:
                    continue
                if os.path.isdir(f"{self.root}/{other}"):
                    self.name = ""
                    raise StockadeError(
                        f"the name {name!r} is in use by container {other[:12]}",
                        hint="choose another name, or remove what has ended with `stockade gc`",
                    ) from None
                _unlink(link)
            else:
                return

    def write(self, **changes: object) -> None:
        """Write the state whole or not at all: a temporary and rename.

        Without fsync: what it describes ends with the kernel, and /run is memory on nearly all machines. Where it
        isn't, fsync costs more than a launch, and an empty file after a power failure reads as no state, which gc
        removes.
        """
        self.state |= changes
        temporary = f"{self.path}/.state.json"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            data = (dumps(self.state) + "\n").encode()
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
        os.rename(temporary, f"{self.path}/state.json")

    def release(self) -> None:
        """Let go of the lock and leave the directory, for a container that has ended and is kept."""
        if self.lock in _locks:
            _locks.remove(self.lock)
            os.close(self.lock)

    def remove(self) -> None:
        """Remove the name and the directory, then let go of the lock."""
        try:
            top = _locked(self.root, fcntl.LOCK_SH)  # gc would take what is half removed for something left behind
        except FileNotFoundError:
            top = -1
        try:
            self._remove()
        finally:
            if top >= 0:
                os.close(top)

    def _remove(self) -> None:
        remove(self.root, self.identity, self.name)
        self.release()


def remove(root: str, identity: str, name: str) -> None:
    """Remove a container's directory and its name, if that still is this container's."""
    if name:
        link = f"{root}/names/{name}"
        try:
            if os.readlink(link) == f"../{identity}":
                os.unlink(link)
        except FileNotFoundError:
            pass
    path = f"{root}/{identity}"
    try:
        entries = os.listdir(path)
    except FileNotFoundError:
        return
    for entry in sorted(entries, key=lambda entry: entry == "lock"):  # the lock last: it says that someone is at work
        _unlink(f"{path}/{entry}")
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


class Found(Record):
    """A container's directory as another process finds it. `state` is empty where none was written yet."""

    root: str
    identity: str
    state: dict[str, object]
    alive: bool


def entries(root: str) -> Iterator[Found]:
    """Give every container of a directory; `alive` says that its supervisor holds the lock."""
    try:
        top = _locked(root, fcntl.LOCK_EX)
    except FileNotFoundError:
        return
    try:
        names = [name for name in sorted(os.listdir(root)) if name != "names" and os.path.isdir(f"{root}/{name}")]
        alive = [held(root, identity) for identity in names]
    finally:
        os.close(top)
    for identity, lives in zip(names, alive, strict=True):
        yield Found(root, identity, read(root, identity), lives)


def read(root: str, identity: str) -> dict[str, object]:
    """Give the state of a container, {} where there is none or it is not JSON."""
    import json

    try:
        with open(f"{root}/{identity}/state.json", "rb") as file:
            state = json.loads(file.read(1 << 22))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def held(root: str, identity: str) -> bool:
    """Tell whether a living supervisor holds the container."""
    try:
        lock = os.open(f"{root}/{identity}/lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return True
        raise
    finally:
        os.close(lock)
    return False


def same_process(pid: object, start: object) -> bool:
    """Tell whether `pid` still is the process that started at `start` (clock ticks since boot), not a later one."""
    if not isinstance(pid, int) or not isinstance(start, int) or pid <= 1:
        return False
    try:
        return process.start_time(pid) == start
    except (ProcessLookupError, FileNotFoundError):
        return False
