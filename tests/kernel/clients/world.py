"""A world of its own for an engine: namespaces, cgroups and file systems that all end with one process.

Engines leave a lot behind: daemons, shims, mounts, links, packet filters, cgroups. A world is a set of namespaces
(mount, network, pid, uts, ipc, cgroup) with a private cgroup in every hierarchy of the host, and with its own tmpfs
wherever an engine writes; killing its first process ends each process in it, and with the last of them the kernel takes
the mounts, links and filters away. What is left is empty cgroups, which are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable, Generator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent.parent
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PRIVATE = ("/run", "/tmp", "/home", "/var/lib", "/var/tmp", "/var/log", "/etc/cni/net.d")
# The controller of a limit, and its file in v1 and in v2.
FILES = {
    "memory": ("memory", "memory.limit_in_bytes", "memory.max"),
    "pids": ("pids", "pids.max", "pids.max"),
    "cpu": ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    "cpuset": ("cpuset", "cpuset.cpus", "cpuset.cpus"),
    "oom": ("memory", "memory.oom_control", "memory.events"),
}
# A file system of each kind is mounted anew where it must show the new namespaces: sysfs has the links of the network
# namespace that mounts it, a cgroup file system the tree below the cgroup namespace's root.
SETUP = """
set -eu
mount --make-rprivate /
umount -R -l /sys
umount -R -l /proc
mount -t proc proc /proc
mount -t sysfs sysfs /sys
[ "$HIERARCHIES" = .:rw:cgroup2 ] || mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
for hierarchy in $HIERARCHIES; do
    mkdir -p "/sys/fs/cgroup/${hierarchy%%:*}"
    mount -t "${hierarchy##*:}" -o "$(echo "$hierarchy" | cut -d: -f2)" cgroup "/sys/fs/cgroup/${hierarchy%%:*}"
done
exec 9<"$TREE"
for private in $PRIVATE; do
    [ ! -d "$private" ] || mount -t tmpfs -o mode=755 tmpfs "$private"
done
if [ ! -e "$TREE/dev" ]; then # it lay below one of them
    mkdir -p "$TREE"
    mount --bind /proc/self/fd/9 "$TREE"
fi
exec 9<&-
chmod 1777 /tmp /var/tmp
if [ -d /etc/containers ]; then # where podman writes its networks
    cp -a /etc/containers /tmp/containers
    mount --bind /tmp/containers /etc/containers
fi
for device in tun:200 fuse:229; do # which this machine gives to root alone, for networks and file systems of others
    place=$(find /dev -name "${device%:*}" -type c)
    [ -n "$place" ] || continue
    mknod -m 666 "/run/${device%:*}" c 10 "${device#*:}"
    mount --bind "/run/${device%:*}" "$place"
done
mount --make-rshared / # as systemd has it
ip link set lo up
exec "$@"
"""


def eventually(condition: Callable[[], Any], seconds: float = 20, what: str = "") -> Any:
    """Ask until the answer is true and give it; fail when it takes longer than `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or condition}; last {answer!r}")
        time.sleep(0.05)


def _hierarchies(leave_out: Sequence[str]) -> list[tuple[str, Path, str, str]]:
    """Give the name below /sys/fs/cgroup, mount point, file system and options of each cgroup hierarchy of the host.

    Where cgroup v2 is the only one it is called `.`.
    """
    found: list[tuple[str, Path, str, str]] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()
        place = Path(before.split()[4])
        if kind not in {"cgroup", "cgroup2"} or place.name in leave_out:
            continue
        if kind == "cgroup2":  # its options are those of the first mount, whatever is said
            found.append((place.name, place, kind, "rw"))
            continue
        wanted = [word for word in options.split(",") if word not in {"rw", "ro"} and not word.startswith("release_")]
        if "name=systemd" in wanted:
            wanted.insert(0, "none")
        found.append((place.name, place, kind, ",".join(wanted)))
    if [kind for _, _, kind, _ in found] == ["cgroup2"]:
        found = [(".", *found[0][1:])]
    return found


class Process:
    """A command that runs in a world."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def ended(self) -> bool:
        """Say whether it has ended; it needs no time."""
        return bool(select.select([self.connection], [], [], 0)[0])

    def wait(self, timeout: float = 60) -> int:
        """Give the exit code, or minus the signal that ended it."""
        self.connection.settimeout(timeout)
        answer = self.connection.recv(64)
        self.connection.close()
        return int(answer)

    def kill(self) -> None:
        """Kill its process group."""
        self.connection.close()


class World:
    """The world's namespaces by its first process `pid`; what is in it is started by `run`, `start` and `terminal`."""

    def __init__(self, name: str, environment: Mapping[str, str], leave_out: Sequence[str] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"stockade-clients-{name}-"))
        self.environment = {"PATH": PATH, "HOME": "/tmp/home", "LANG": "C.UTF-8", **environment}
        self.user_environment: dict[str, str] = {}
        self.hierarchies = _hierarchies(leave_out)
        self.groups = [place / self.directory.name for _, place, _, _ in self.hierarchies]
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.processes: list[Process] = []
        self.agent: subprocess.Popen[bytes] | None = None
        lifeline, self.lifeline = os.pipe()
        try:
            self._make_groups()
            self.listener.bind(f"{self.directory}/agent")
            self.listener.listen()
            self.agent = self._begin(lifeline)
            self.pid = self._first()
            self.root = Path(f"/proc/{self.pid}/root")
            (self.root / "tmp/home").mkdir()
        except BaseException:
            self.end()
            raise
        finally:
            os.close(lifeline)

    def _make_groups(self) -> None:
        for group in self.groups:
            group.mkdir()
            for setting in ("cpuset.cpus", "cpuset.mems"):  # on v1 empty in a new group, and nothing can run then
                if (group / setting).exists():
                    (group / setting).write_text((group.parent / setting).read_text())

    def _begin(self, lifeline: int) -> subprocess.Popen[bytes]:
        enter = "".join(f"echo $$ >{group}/cgroup.procs\n" for group in self.groups)
        unshare = ["unshare", "-m", "-n", "-p", "-u", "-i", "-C", "--fork", "--kill-child"]
        given = (self.listener.fileno(), lifeline)
        agent = [sys.executable, "-I", f"{HERE}/agent.py", *map(str, given)]
        return subprocess.Popen(
            ["sh", "-euc", f'{enter}exec "$@"', "sh", *unshare, "sh", "-c", SETUP, "sh", *agent],
            env={
                "PATH": PATH,
                "PRIVATE": " ".join(PRIVATE),
                "TREE": str(TREE),
                "HIERARCHIES": " ".join(f"{name}:{options}:{kind}" for name, _, kind, options in self.hierarchies),
            },
            pass_fds=given,
            stdin=subprocess.DEVNULL,
        )

    def _first(self) -> int:
        ready = self.start(["true"])
        agent = self.agent
        assert agent is not None
        eventually(lambda: ready.ended() or agent.poll() is not None, what="the first process to answer")
        assert agent.poll() is None, "the namespaces can't be had"
        ready.wait()
        first = int(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()[0])
        if self.hierarchies[0][0] == ".":
            self._delegate(outside=agent.pid, init=first)
        return first

    def _delegate(self, **processes: int) -> None:
        """Move the processes that are there below the world's group: with some in itself it can't give controllers."""
        (group,) = self.groups
        for name, pid in processes.items():
            (group / name).mkdir()
            (group / name / "cgroup.procs").write_text(str(pid))
        for controller in (group / "cgroup.controllers").read_text().split():
            (group / "cgroup.subtree_control").write_text(f"+{controller}")

    def end(self) -> None:
        """Kill everything in the world and remove its cgroups."""
        for process in self.processes:
            process.kill()
        self.listener.close()
        os.close(self.lifeline)
        if self.agent is not None:
            self.agent.wait(30)
        for group in self.groups:
            eventually(functools.partial(_removed, group), what=f"{group} to be empty")
        shutil.rmtree(self.directory)

    def start(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] | None = None,
        user: pwd.struct_passwd | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> Process:
        """Start a command; what it leaves of its standard streams is /dev/null."""
        environment = self.environment | (self.user_environment if user is not None else {}) | dict(env or {})
        asked = {
            "argv": [os.fspath(word) for word in argv],
            "env": environment,
            "cwd": cwd,
            "user": None if user is None else [user.pw_uid, user.pw_gid],
        }
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(f"{self.directory}/agent")
        with open(os.devnull, "r+b") as null:
            streams = (null if stream == subprocess.DEVNULL else stream for stream in (stdin, stdout, stderr or stdout))
            descriptors = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
            socket.send_fds(connection, [json.dumps(asked).encode()], descriptors)
        process = Process(connection)
        self.processes.append(process)
        return process

    def run(
        self,
        *argv: str | os.PathLike[str],
        input: str | bytes = "",
        timeout: float = 60,
        user: pwd.struct_passwd | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end: its exit code and what it wrote, as text."""
        with contextlib.ExitStack() as stack:
            stdin, stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            stdin.write(input if isinstance(input, bytes) else input.encode())
            stdin.seek(0)
            process = self.start(argv, stdin=stdin, stdout=stdout, stderr=stderr, user=user, env=env)
            try:
                code = process.wait(timeout)
            except TimeoutError:
                process.kill()
                code = -signal.SIGALRM
            texts: list[str] = []
            for stream in (stdout, stderr):
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
        if code == -signal.SIGALRM:
            raise AssertionError(f"{list(argv)} took longer than {timeout} s; it said {texts}")
        done = subprocess.CompletedProcess([os.fspath(word) for word in argv], code, texts[0], texts[1])
        assert not check or code == 0, done
        return done

    def limit(self, pid: str, of: str) -> str:
        """Give what the cgroup of a process says of `memory`, `pids`, `cpu` (µs in 100 ms), `cpuset` or `oom`."""
        controller, v1, v2 = FILES[of]
        for line in (self.root / "proc" / pid / "cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            for name, place, kind, _ in self.hierarchies:
                if name == "." and controllers == "":
                    return (place / group.lstrip("/") / v2).read_text().strip().removesuffix(" 100000")
                if kind == "cgroup" and controller in controllers.split(",") and controller in name.split(","):
                    return (place / group.lstrip("/") / v1).read_text().strip()
        raise AssertionError(f"no {controller} cgroup of {pid}")

    @contextlib.contextmanager
    def terminal(self, *argv: str, user: pwd.struct_passwd | None = None) -> Generator[Terminal]:
        """Run a command on a terminal of its own, 33 rows of 101 columns."""
        master, slave = pty.openpty()
        try:
            _resize(master, 33, 101)
            process = self.start(argv, stdin=slave, stdout=slave, user=user, env={"TERM": "xterm"})
            os.close(slave)
            slave = -1
            yield Terminal(master, process)
        finally:
            os.close(master)
            if slave >= 0:
                os.close(slave)


class Terminal:
    """The other side of a terminal: type into it, wait for what it shows."""

    def __init__(self, master: int, process: Process) -> None:
        self.master = master
        self.process = process
        self.shown = ""

    def type(self, text: str) -> None:
        """Type these characters."""
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size; its foreground process hears of it."""
        _resize(self.master, rows, columns)

    def expect(self, text: str, seconds: float = 20) -> str:
        """Wait until it has shown this text; give all that it has shown."""
        end = time.monotonic() + seconds
        while text not in self.shown:
            if not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {text!r} within {seconds} s in {self.shown!r}")
            try:
                self.shown += os.read(self.master, 65536).decode(errors="replace")
            except OSError:  # EIO: the other side is gone
                raise AssertionError(f"no {text!r} but the end in {self.shown!r}") from None
        return self.shown


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _removed(group: Path) -> bool:
    """Remove a cgroup with all below it; say whether it is gone."""
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:  # a process of it is still on its way out
            return False
    return not group.exists()
