"""What a container, an image or a neighbour tries against `stockade-runtime`, and what must come of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.runtime import boot, state
from tests.kernel.bundles import Runtime, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.kernel
NULL = subprocess.DEVNULL
BOOT = Path(boot.__file__)
#: what Docker gives, and CAP_SYS_PTRACE
PTRACE = {
    name: [f"CAP_{word}" for word in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_PTRACE")]
    for name in ("bounding", "effective", "permitted")
}
#: looks for a file of the host by way of every other process: its root, its working directory, its descriptors
SPY = """
mark=$1; echo up > /tmp/up; up=../../../../../../../../..
while :; do
    for process in /proc/[2-9]* /proc/1[0-9]*; do
        for way in $process/root $process/cwd $process/fd/*; do
            [ -e $way/$up$mark ] && echo $way
        done
    done
done > /tmp/found
"""


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def runtime(public_tmp: Path) -> Iterator[Runtime]:
    """Give the command with a root of its own; what a test leaves is removed."""
    root = public_tmp / "state"
    run = Runtime(root)
    yield run
    for name in os.listdir(root) if root.exists() else ():
        run("delete", "--force", name)


@pytest.fixture
def bundle(public_tmp: Path, rootfs: Path) -> Callable[..., Path]:
    """Write a bundle of a program, what changes in its process, and what in its `linux`."""
    made: list[Path] = []

    def make(*args: str, process: dict[str, Any] | None = None, **linux: Any) -> Path:
        directory = write(public_tmp / f"bundle{len(made)}", rootfs, args=args or ("/bin/sleep", "60"), **linux)
        made.append(directory)
        config = json.loads((directory / "config.json").read_text())
        config["process"].update(process or {})
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    return make


def test_cve_2016_9962_whoever_may_ptrace_does_not_find_the_host_behind_a_process_that_joins(
    runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path, rootfs: Path
) -> None:
    mark = public_tmp / "mark"
    mark.write_text("")
    directory = bundle("/bin/sh", "-c", SPY, "spy", str(mark), process={"capabilities": PTRACE})
    runtime.ok("create", "--bundle", directory, "spied")
    runtime.ok("start", "spied")
    until((rootfs / "tmp/up").exists)
    for _ in range(15):
        runtime.ok("exec", "spied", "/bin/true")
    assert (rootfs / "tmp/found").read_text() == ""
    # One that only enters the PID namespace is found: the attack works.
    pid = json.loads(runtime.ok("state", "spied"))["pid"]
    with subprocess.Popen(["/usr/bin/nsenter", "--target", str(pid), "--pid", "/bin/sleep", "20"]) as weak:
        until(lambda: "root" in (rootfs / "tmp/found").read_text())
        weak.kill()


def test_the_mode_of_the_hosts_null_device_is_out_of_reach_where_an_image_makes_us_bind_it(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path
) -> None:
    """A file in the place of a device is covered with the host's own node, whose mode is that of all the host."""
    (rootfs / "dev/zero").write_text("no device")
    before = os.stat("/dev/zero").st_mode
    script = "cd /dev; chmod 4666 zero; chown 1 zero; head -c 3 zero > /tmp/read; echo x > zero && echo w > /tmp/w"

    runtime("run", "--bundle", bundle("/bin/sh", "-c", script), "chmod")
    after = os.stat("/dev/zero")
    os.chmod("/dev/zero", before & 0o7777)

    assert (after.st_mode, after.st_uid) == (before, 0)
    assert (rootfs / "tmp/read").read_bytes() == bytes(3)
    assert (rootfs / "tmp/w").exists()
    # A writable bind of it, as a volume, is another thing: there the attack works.
    weak = bundle("/bin/chmod", "0660", "/dev/full")
    config = json.loads((weak / "config.json").read_text())
    config["mounts"].append({"destination": "/dev/full", "type": "bind", "source": "/dev/full", "options": ["bind"]})
    (weak / "config.json").write_text(json.dumps(config))
    mode = os.stat("/dev/full").st_mode
    runtime("run", "--bundle", weak, "weak")
    changed = os.stat("/dev/full").st_mode
    os.chmod("/dev/full", mode & 0o7777)
    assert changed & 0o7777 == 0o660


# ---- races ----------------------------------------------------------------------------------------------------------


def waits_for(directory: Path) -> bool:
    """Tell whether someone waits for the lock on a directory, proc_locks(5)."""
    inode = directory.stat().st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and line.split()[-3].endswith(f":{inode}") for line in lines)


def test_a_name_that_changes_hands_while_a_command_waits_for_it_is_locked_anew(public_tmp: Path) -> None:
    """Else `delete`, with the lock on a container that has gone, works on the next one of the name unlocked."""
    root = public_tmp / "state"
    first = state.make(str(root), "name", {}, b"{}")
    first.write(generation=1)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(state.load, str(root), "name", lock=True)
        until(lambda: waits_for(root / "name"))
        (root / "name").rename(root / "gone")
        second = state.make(str(root), "name", {}, b"{}")
        first.close()
        until(lambda: waits_for(root / "name"))
        second.write(generation=2)
        second.close()
        found = waiting.result(timeout=20)
    assert found.data["generation"] == 2
    found.close()


def test_many_creates_and_deletes_of_one_name_at_once_leave_nothing(
    runtime: Runtime, bundle: Callable[..., Path]
) -> None:
    create, delete = ("create", "--bundle", str(bundle())), ("delete", "--force")
    for _ in range(6):
        calls = [[*words, "storm"] for words in (create, create, delete, ("start",), delete)]
        running = [subprocess.Popen([*runtime.command, *call], stdin=NULL, stdout=NULL, stderr=NULL) for call in calls]
        codes = [process.wait(60) for process in running]
        assert codes[2] == codes[4] == 0
        assert 0 in codes[:2]
    runtime.ok("delete", "--force", "storm")
    assert runtime.ok("list", "--quiet") == ""
    assert groups("storm") == []


def groups(identity: str) -> list[Path]:
    tops = list(Path("/sys/fs/cgroup").iterdir())
    return [path for top in tops for path in (top / identity, *top.glob(f"*/*/{identity}")) if path.exists()]


def test_kill_9_of_run_ends_a_container_without_a_pid_namespace_too(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path
) -> None:
    """Nothing of the kernel's own does that: who left the first process's session survived it."""
    script = "setsid sleep 4242 & sleep 4242 & echo up > /tmp/up; exec sleep 4242"
    directory = bundle("/bin/sh", "-c", script, namespaces=[{"type": "mount"}])
    process = subprocess.Popen([*runtime.command, "run", "--bundle", directory, "orphans"], stdin=NULL, stdout=NULL)
    until((rootfs / "tmp/up").exists)
    procs = groups("orphans")[0] / "cgroup.procs"
    assert len(procs.read_text().split()) == 3
    process.kill()
    process.wait()
    until(lambda: not procs.read_text(), seconds=1)


# ---- what a running container does to those who join it -------------------------------------------------------------


def started(runtime: Runtime, directory: Path, rootfs: Path) -> str:
    """Start a bundle whose program writes /tmp/up when it is ready, and give the ID."""
    runtime.ok("create", "--bundle", directory, "target")
    runtime.ok("start", "target")
    until((rootfs / "tmp/up").exists)
    return "target"


HOSTILE_DEV = {
    "a fifo": "rm -rf pts; mkdir pts; mkfifo pts/ptmx; rm null; mkfifo null",
    "a file": "rm -rf pts; mkdir pts; echo > pts/ptmx; rm null; echo > null",
    "links": "rm -rf pts; ln -s /proc/self/fd pts; rm null; ln -s /etc/passwd null",
    "a linked /dev": "mv /dev /else; ln -s /proc/1/root/else /dev",
    "no directory": "mv /dev /else; echo > /dev",
}


@pytest.mark.parametrize("what", HOSTILE_DEV)
def test_what_a_container_puts_in_place_of_its_devices_reaches_no_device_of_the_host(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path, public_tmp: Path, what: str
) -> None:
    """An exec whose stdin is the host's null device gets another one; a terminal comes from a devpts or not at all."""
    script = f"cd /dev; {HOSTILE_DEV[what]}; echo > /tmp/up; exec sleep 60"
    target = started(runtime, bundle("/bin/sh", "-c", script), rootfs)
    before = os.stat("/dev/null").st_mode
    done = runtime("exec", target, "/bin/sh", "-c", "cat; chmod 0600 /proc/self/fd/0; echo done")
    after = os.stat("/dev/null").st_mode
    os.chmod("/dev/null", before & 0o7777)
    assert (done.returncode, done.stdout, after) == (0, "done\n", before)

    (public_tmp / "process").write_text(json.dumps({"cwd": "/", "args": ["/bin/true"], "terminal": True}))
    console = public_tmp / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(console))
        listener.listen()
        words = ("--detach", "--console-socket", console, "--process", public_tmp / "process")
        done = runtime("exec", *words, target)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert done.returncode == 255
    assert "terminal in the container" in done.stderr or "open /dev" in done.stderr


@pytest.mark.parametrize("place", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/root", "/proc/self/cwd", "/out"])
def test_cve_2024_21626_the_working_directory_leads_through_no_magic_link(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path, place: str
) -> None:
    (rootfs / "out").symlink_to("/proc/self/fd/3")
    target = started(runtime, bundle("/bin/sh", "-c", "echo > /tmp/up; exec sleep 60"), rootfs)
    inherited = os.open("/", os.O_RDONLY)
    try:
        os.set_inheritable(inherited, True)
        joined = runtime("exec", "--cwd", place, target, "/bin/pwd")
        made = runtime("run", "--bundle", bundle("/bin/pwd", process={"cwd": place}), "made")
    finally:
        os.close(inherited)
    assert joined.returncode != 0
    assert made.returncode != 0
    assert joined.stdout == made.stdout == ""


def status(text: str) -> dict[str, str]:
    lines = [line.partition(":") for line in text.splitlines()]
    return {name: value.strip() for name, _, value in lines if name.startswith(("Cap", "Seccomp", "NoNew"))}


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("gain", [False, True])
def test_who_joins_has_the_sets_and_the_filter_of_the_first_process_and_no_more(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path, *, user: bool, gain: bool
) -> None:
    kinds = ["pid", "mount", "ipc", *(["user"] if user else [])]
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}] if user else []
    for name in ("dev", "tmp") if user else ():
        os.chown(rootfs / name, 100000, 100000)
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}]}
    words = {name: ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT"] for name in ("bounding", "effective", "permitted")}
    directory = bundle(
        *("/bin/sh", "-c", "cat /proc/self/status > /tmp/first; echo > /tmp/up; exec sleep 60"),
        process={"capabilities": words, "noNewPrivileges": not gain},
        namespaces=[{"type": kind} for kind in kinds], uidMappings=ids, gidMappings=ids, seccomp=seccomp,
    )  # fmt: skip
    target = started(runtime, directory, rootfs)
    first = status((rootfs / "tmp/first").read_text())

    assert status(runtime.ok("exec", target, "/bin/cat", "/proc/self/status")) == first
    assert runtime("exec", target, "/bin/chroot", "/", "/bin/true").returncode not in {0, 255}
    more = status(runtime.ok("exec", "--cap", "CAP_FOWNER", target, "/bin/cat", "/proc/self/status"))
    assert (first["Seccomp"], first["NoNewPrivs"]) == ("2", str(int(not gain)))
    assert int(more["CapEff"], 16) == int(first["CapEff"], 16) | 1 << 3
    assert {name: value for name, value in more.items() if not name.startswith("Cap")} == {
        name: value for name, value in first.items() if not name.startswith("Cap")
    }


# ---- an image that changes while it is being started ----------------------------------------------------------------

EXCHANGE = """
import ctypes, sys
call = ctypes.CDLL(None).renameat2
pairs = [(sys.argv[i].encode(), sys.argv[i + 1].encode()) for i in range(1, len(sys.argv), 2)]
print(flush=True)
while True:
    for one, other in pairs:
        call(-100, one, -100, other, 2)
"""


@pytest.mark.parametrize("places", [("dev",), ("proc", "sys"), ("v/a", "v/t"), ("dev/null", "dev/made"), ("cwd",)])
def test_cve_2021_30465_a_place_that_becomes_a_link_meanwhile_leads_nowhere(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path, public_tmp: Path, places: tuple[str, ...]
) -> None:
    host = public_tmp / "host"
    for name in ("pts", "b"):
        (host / name).mkdir(parents=True)
    for name in ("null", "made", "console", "secret"):
        (host / name).write_text("the host's")
    for name in ("v/a", "v/t", "cwd"):
        (rootfs / name).mkdir(parents=True)
    for name in ("null", "made"):
        (rootfs / "dev" / name).write_text("")
    pairs = []
    for number, place in enumerate(places):
        (rootfs / f"link{number}").symlink_to(host / "secret" if place.startswith("dev/") else host)
        pairs += [str(rootfs / place), str(rootfs / f"link{number}")]
    directory = bundle(
        *("/bin/sh", "-c", "cat /v/a/secret /v/t/secret /dev/secret /cwd/secret secret 2>&1"),
        process={"cwd": "/cwd/in"},
        devices=[{"path": "/dev/made", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 5, "gid": 5}],
    )
    config = json.loads((directory / "config.json").read_text())
    (public_tmp / "volume").mkdir()
    config["mounts"] += [
        {"destination": "/v/a/b", "type": "bind", "source": str(public_tmp / "volume"), "options": ["rbind"]},
        {"destination": "/v/t", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
    ]
    (directory / "config.json").write_text(json.dumps(config))
    before = listing(host)
    with subprocess.Popen([sys.executable, "-c", EXCHANGE, *pairs], stdout=subprocess.PIPE) as exchange:
        assert exchange.stdout is not None
        exchange.stdout.readline()
        for _ in range(8):
            assert "the host's" not in runtime("run", "--bundle", directory, "swapped").stdout
        exchange.kill()
    assert listing(host) == before


def listing(directory: Path) -> list[tuple[str, int, int, str]]:
    found = []
    for path in sorted(directory.rglob("*")):
        one = path.lstat()
        found.append((path.name, one.st_mode, one.st_uid, path.read_text() if path.is_file() else ""))
    return found


def test_a_start_that_was_killed_half_way_leaves_no_running_container_that_passes_for_a_created_one(
    runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path
) -> None:
    """Else `delete` without --force ends it."""
    runtime.ok("create", "--bundle", bundle(), "half")
    path = public_tmp / "state/half/start.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(path))
        connection.send(b"g")
        assert connection.recv(1) == b""
    assert path.exists()
    assert runtime.status("half") == "running"
    assert json.loads(runtime.ok("list", "--format", "json"))[0]["status"] == "running"
    assert "already running" in runtime("start", "half").stderr
    assert "not stopped" in runtime("delete", "half").stderr
    runtime.ok("delete", "--force", "half")


def test_a_signal_that_comes_as_soon_as_the_program_runs_is_passed_on(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path, public_tmp: Path
) -> None:
    """Else it ends `run` itself, and state and groups stay. While the hook runs nobody follows the program yet."""
    directory = bundle("/bin/sh", "-c", "trap 'exit 9' TERM; echo > /tmp/up; while :; do sleep 0.05; done")
    script = f"until [ -e {rootfs}/tmp/up ]; do sleep 0.01; done; kill $PPID"
    config = json.loads((directory / "config.json").read_text())
    config["hooks"] = {
        "poststart": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 20}]
    }
    (directory / "config.json").write_text(json.dumps(config))
    assert runtime("run", "--bundle", directory, "early").returncode == 9
    assert os.listdir(public_tmp / "state") == []


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_the_null_device_and_no_file_of_the_runtime(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path, closed: str
) -> None:
    directory = bundle("/bin/sh", "-c", "for n in 0 1 2; do readlink /proc/self/fd/$n >> /tmp/streams; done")
    for command in (runtime.command, [sys.executable, "-I", "-S", str(BOOT), *runtime.command[1:]]):
        (rootfs / "tmp/streams").write_text("")
        shell = f'exec "$@" run --bundle {directory} closed {closed}'
        subprocess.run(["/bin/sh", "-c", shell, "sh", *command], check=True, stderr=NULL, timeout=60)
        streams = (rootfs / "tmp/streams").read_text().split()
        assert streams[:1] == ["/dev/null"]
        assert not any("stockade" in stream or ".py" in stream for stream in streams)
