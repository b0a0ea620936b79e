"""What a container, an image or a neighbour tries against `stockade-runtime`, and what must come of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.runtime import state
from tests.kernel.bundles import Runtime, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.kernel
NULL = subprocess.DEVNULL
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
