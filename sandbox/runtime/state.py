"""Containers of `stockade-runtime` on disk: ROOT/ID with the state, the configuration as read, the socket of start.

Nothing of ours stays resident, so what a container is must follow from the files and from /proc: `state.json` names its
first process with the time of its start, and while the socket is there that process waits for `start`. Whoever changes
a container holds the lock on its directory; the kernel lets go of it whatever way a process ends.
"""

from __future__ import annotations

import fcntl
import os

from stockade.errors import StockadeError
from stockade.sandbox.linux import procfs
from stockade.sandbox.oci import lean_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stockade.sandbox.cgroup_handle import EngineCgroup
    from stockade.sandbox.oci.spec import Spec

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
STATE, CONFIG, SOCKET = "state.json", "config.json", "start.sock"
OCI_VERSION = "1.2.0"
WAITING = "/memfd:stockade-init"  # launch.Launcher
#: bytes; a configuration has at most as many, and its annotations are most of a state
MAX_STATE = 1 << 25
MAX_PID = 1 << 22  # PID_MAX_LIMIT of the kernel


def private(path: str) -> None:
    """Make ROOT with the directories above it; what is there already must be ours, and closed to others for writing."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        found = os.stat(path)
    except OSError as error:
        raise StockadeError(
            f"the root directory for state can't be made: {error.strerror}: {path}",
            hint="give a directory that can be written with --root, or set XDG_RUNTIME_DIR",
        ) from error
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StockadeError(
            f"{path} can be written by other users", hint="give another directory with --root, or close this one"
        )


class Container:
    """One container as its files and /proc tell it. `data` is what state.json holds."""

    def __init__(self, root: str, identity: str, data: dict[str, Any]) -> None:
        self.root, self.identity, self.data = root, identity, data
        self.path = f"{root}/{identity}"
        self.lock = -1

    @property
    def pid(self) -> int:
        """The first process, as its creator saw it; 0 while there is none."""
        return int(self.data.get("pid") or 0)

    def status(self) -> str:
        """Give OCI's word: creating, created, running, paused or stopped."""
        if not self.pid:
            return CREATING if self._locked_by_other() else STOPPED
        if not self.alive():
            return STOPPED
        if self._frozen():
            return PAUSED
        return CREATED if os.path.lexists(f"{self.path}/{SOCKET}") and self._waits() else RUNNING

    def _waits(self) -> bool:
        """Tell whether it still is the launcher's program: a killed `start` leaves the socket of what runs."""
        try:
            return os.readlink(f"/proc/{self.pid}/exe").startswith(WAITING)
        except OSError:
            return True  # not ours to look at

    def alive(self) -> bool:
        """Tell whether the first process is there, and no later one that has got its pid."""
        found = stat_of(self.pid)
        return found is not None and found[0] not in "ZX" and found[1] == self.data.get("start")

    def _frozen(self) -> bool:
        lines = [line.partition(":") for line in self.data.get("cgroups") or ()]
        return any(_says_frozen(path) for names, _, path in lines if not names or "freezer" in names.split(","))

    def _locked_by_other(self) -> bool:
        if self.lock >= 0:
            return False
        try:
            lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def pidfd(self) -> int:
        """Give a pidfd of the first process, or -1 when it has ended. The caller closes it."""
        if not self.pid:
            return -1
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return -1
        if self.alive():  # looked at after the open: the pidfd is of the process that we know
            return descriptor
        os.close(descriptor)
        return -1

    def cgroup(self) -> EngineCgroup:
        """Give the container's control groups; each is opened when it is needed."""
        from stockade.sandbox.runtime import groups

        return groups.reopen(self.data.get("cgroups") or ())

    def config(self) -> Any:
        """Give the configuration as it was when the container was created, decoded."""
        found = lean_json.loads(procfs.read_path(f"{self.path}/{CONFIG}", limit=MAX_STATE), CONFIG)
        if not isinstance(found, dict):
            raise StockadeError(f"{self.path}/{CONFIG} is not a configuration", hint="delete the container")
        return found

    def spec(self) -> Spec:
        """Give the configuration as a Spec."""
        from stockade.sandbox.oci import read

        return read.snapshot(procfs.read_path(f"{self.path}/{CONFIG}"), CONFIG)

    def write(self, **changes: object) -> None:
        """Change the state on disk: whole or not at all. Without fsync, as what it describes ends with the kernel."""
        self.data |= changes
        put(f"{self.path}/{STATE}", (lean_json.dumps(self.data) + "\n").encode("utf-8", "surrogatepass"))

    def close(self) -> None:
        """Let go of the lock."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def remove(self) -> None:
        """Remove the directory and let go of the lock."""
        for name in os.listdir(self.path):
            os.unlink(f"{self.path}/{name}")
        os.rmdir(self.path)
        self.close()


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def put(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all: a temporary in the same directory and rename."""
    head, _, tail = path.rpartition("/")
    temporary = f"{head}/.{tail}"
    try:
        descriptor = os.open(temporary, _NEW, mode)
    except FileExistsError:  # of a killed call; or somebody else's, in a directory such as /tmp
        os.unlink(temporary)
        descriptor = os.open(temporary, _NEW, mode)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def _says_frozen(path: str) -> bool:
    for name, word in (("freezer.state", b"FROZEN"), ("cgroup.freeze", b"1")):
        try:
            return procfs.read_path(f"{path}/{name}").startswith(word)
        except OSError:
            continue
    return False


def stat_of(pid: int) -> tuple[str, int] | None:
    """Give state and start (clock ticks since boot) of a process, None where there is none, proc(5)."""
    try:
        text = procfs.read(pid, "stat")
    except ProcessLookupError:
        return None
    words = text[text.rindex(b")") + 2 :].split(None, 20)  # a program can put anything into its name
    return chr(words[0][0]), int(words[19])


def make(root: str, identity: str, data: dict[str, object], config: bytes) -> Container:
    """Make a container's directory with its lock and configuration; the state comes with the first `write`.

    StockadeError where the name is taken.
    """
    container = Container(root, identity, dict(data))
    taken = StockadeError(
        f"container with id exists: {identity}", hint=f"choose another ID, or remove it: delete {identity}"
    )
    while container.lock < 0:
        private(root)
        try:
            os.mkdir(container.path, 0o700)
            container.lock = _locked(container.path)
        except FileExistsError:
            raise taken from None
        except FileNotFoundError:
            continue  # a `delete` came between the two and took it for what a killed `create` has left
    if os.listdir(container.lock):  # ... and after it another `create`
        container.close()
        raise taken
    try:
        put(f"{container.path}/{CONFIG}", config)
    except BaseException:
        container.remove()
        raise
    return container


def _locked(path: str) -> int:
    """Lock the directory that has this name, also when we have got the lock: it may have been removed and made anew."""
    while True:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def absent(identity: str) -> StockadeError:
    """Give the error for a container that is not there, in the words that engines look for."""
    return StockadeError(
        f'container "{identity}" does not exist', hint="see `list`, and whether --root is the same as for create"
    )


def load(root: str, identity: str, *, lock: bool = False) -> Container:
    """Read a container. With `lock` nobody else changes it until `close`, or until our end.

    Raises StockadeError where there is none, and where its state can't be read.
    """
    container = Container(root, identity, {})
    try:
        if lock:
            container.lock = _locked(container.path)
        data = procfs.read_path(f"{container.path}/{STATE}", limit=MAX_STATE)
    except (FileNotFoundError, NotADirectoryError):
        if container.lock >= 0:
            return container  # `create` was killed before it wrote anything: `delete --force` removes it
        container.close()
        raise absent(identity) from None
    found = lean_json.loads(data, f"{container.path}/{STATE}")
    if not _is_state(found):
        raise StockadeError(
            f"{container.path}/{STATE} is not a state", hint="end its processes, then remove the directory"
        )
    container.data = found
    return container


def _is_state(found: Any) -> bool:
    """Tell whether what was read has the types that we write: a damaged file is to be told of in one way."""
    if not isinstance(found, dict):
        return False
    numbers = [found.get(name, 0) for name in ("pid", "start")]
    words = [found.get(name, []) for name in ("cgroups", "hooks")]
    return (
        all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
        and numbers[0] <= MAX_PID
        and all(isinstance(each, list) and all(isinstance(word, str) for word in each) for each in words)
        and isinstance(found.get("annotations", {}), dict)
        and isinstance(found.get("last", {}), dict)
    )


def names(root: str) -> list[str]:
    """Give the IDs of all containers below a root, in no order."""
    try:
        with os.scandir(root) as found:
            return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
