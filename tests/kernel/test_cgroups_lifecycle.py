"""Killing, freezing and removing real control groups, also those of a payload that resists."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from stockade.errors import StockadeError
from stockade.sandbox import cgroup_tree, cgroups
from stockade.sandbox.linux import cgroups as kernel
from stockade.sandbox.oci.spec import LinuxDeviceCgroup, LinuxPids, LinuxResources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stockade.sandbox.cgroups import Cgroup

pytestmark = pytest.mark.kernel

# Every process has two children and makes two more whenever it is interrupted in its sleep, in a session of its own.
BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
for _ in range(100000):
    try:
        os.fork()
    except OSError:
        time.sleep(0.001)
"""


def v1_only() -> kernel.Layout:
    where = kernel.layout()
    return kernel.Layout(tuple(h for h in where.hierarchies if h.version == 1))


def v2_only() -> kernel.Layout:
    where = kernel.layout()
    return kernel.Layout(tuple(h for h in where.hierarchies if h.version == 2))


@pytest.fixture
def make() -> Iterator[Callable[..., Cgroup]]:
    made: list[Cgroup] = []

    def create(resources: LinuxResources | None = None, **options: object) -> Cgroup:
        group = cgroups.create(f"stockade/test-{uuid.uuid4().hex[:12]}", resources, **options)  # type: ignore[arg-type]
        made.append(group)
        return group

    yield create
    for group in made:
        assert cgroups.remove_path(group.paths)
        assert not cgroups.exists(group.paths)
        group.close()


@pytest.fixture
def start() -> Iterator[Callable[[Cgroup, str], int]]:
    """Start Python code in a group; the pids are reaped at the end."""
    started: list[int] = []

    def fork(group: Cgroup, code: str) -> int:
        hold, release = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(release)
            os.read(hold, 1)
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code])
        os.close(hold)
        started.append(pid)
        group.attach(pid)
        os.write(release, b"1")
        os.close(release)
        return pid

    yield fork
    for pid in started:
        os.kill(pid, signal.SIGKILL)  # only by its pid until it is reaped: never another process
        os.waitpid(pid, 0)


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


LAYOUTS = pytest.mark.parametrize("layout", [v1_only, kernel.layout], ids=["freezer", "cgroup.kill"])


@LAYOUTS
def test_kill_ends_a_fork_bomb(
    make: Callable[..., Cgroup], start: Callable[[Cgroup, str], int], layout: Callable[[], kernel.Layout]
) -> None:
    group = make(LinuxResources(pids=LinuxPids(60)), layout=layout())
    start(group, BOMB)
    wait_for(lambda: len(group.pids()) > 50)

    assert group.kill()
    assert group.pids() == []
    assert group.remove()


@LAYOUTS
def test_a_frozen_container_stands_still_until_it_is_thawed(
    make: Callable[..., Cgroup], start: Callable[[Cgroup, str], int], layout: Callable[[], kernel.Layout]
) -> None:
    out, into = os.pipe()
    os.set_inheritable(into, True)
    group = make(need=["freezer"], layout=layout())
    start(group, f"import os, time\nwhile True:\n    os.write({into}, b'.')\n    time.sleep(0.001)\n")
    os.close(into)
    wait_for(lambda: _drain(out) > 0)

    group.freeze()
    assert group.is_frozen()
    _drain(out)
    time.sleep(0.05)
    assert _drain(out) == 0
    group.thaw()
    assert not group.is_frozen()
    wait_for(lambda: _drain(out) > 0)
    assert group.kill()
    os.close(out)


def _drain(fd: int) -> int:
    """Read what a pipe has, without waiting."""
    os.set_blocking(fd, False)
    try:
        return len(os.read(fd, 1 << 16))
    except BlockingIOError:
        return 0


@LAYOUTS
def test_kill_reaches_a_frozen_container(
    make: Callable[..., Cgroup], start: Callable[[Cgroup, str], int], layout: Callable[[], kernel.Layout]
) -> None:
    group = make(need=["freezer"], layout=layout())
    start(group, "import time; time.sleep(60)")
    group.freeze()

    assert group.kill()
    assert group.pids() == []


def test_kill_reaches_processes_in_groups_that_the_payload_nested(
    make: Callable[..., Cgroup], start: Callable[[Cgroup, str], int]
) -> None:
    group = make(LinuxResources(pids=LinuxPids(20)), layout=v1_only())
    inner = f"{next(path for path in group.paths if '/pids/' in path)}/a/b"
    os.makedirs(inner)
    pid = start(group, f"import time; open('{inner}/cgroup.procs', 'w').write('0'); time.sleep(60)")
    wait_for(lambda: kernel.membership(pid)["pids"].endswith("/a/b"))

    assert group.pids() == [pid]
    assert group.kill()
    assert group.remove()


def test_groups_nested_deeper_than_a_path_is_long_are_removed(make: Callable[..., Cgroup]) -> None:
    group = make(LinuxResources(pids=LinuxPids(20)))
    fd = cgroup_tree.open_directory(next(path for path in group.paths if "/pids/" in path))
    name = "n" * 200
    for _ in range(40):  # 8000 bytes; PATH_MAX is 4096
        os.mkdir(name, dir_fd=fd)
        os.mkdir("side", dir_fd=fd)
        inner = cgroup_tree.open_directory(name, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)

    assert group.remove()
    assert not cgroups.exists(group.paths)


def test_a_group_with_live_processes_is_not_removed_and_said_to_be_there(
    make: Callable[..., Cgroup], start: Callable[[Cgroup, str], int]
) -> None:
    group = make(LinuxResources(pids=LinuxPids(20)))
    pid = start(group, "import time; time.sleep(60)")

    assert not group.remove(timeout=0.05)
    assert cgroups.exists(group.paths)
    assert cgroups.reopen(group.paths).pids() == [pid]


def test_gc_kills_and_removes_by_recorded_paths(
    make: Callable[..., Cgroup], start: Callable[[Cgroup, str], int]
) -> None:
    group = make(LinuxResources(pids=LinuxPids(20)))
    pid = start(group, BOMB)
    group.close()

    assert cgroups.remove_path(group.paths)
    assert not cgroups.exists(group.paths)
    died = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert died
    assert died.si_status == signal.SIGKILL
    assert cgroups.remove_path(group.paths), "a second time there is nothing left to do"


@pytest.mark.parametrize("path", ["/etc", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/../memory/x", "relative"])
def test_state_that_names_something_else_than_a_group_is_refused(path: str) -> None:
    with pytest.raises(StockadeError, match="cgroup path in the container's state"):
        cgroups.remove_path([path])


@pytest.mark.parametrize("name", ["", "/", "a/../b", "..", "a\nb", "./a"])
def test_a_cgroups_path_that_leaves_its_parent_is_refused(name: str) -> None:
    with pytest.raises(StockadeError, match="cgroups path"):
        cgroups.create(name, LinuxResources(pids=LinuxPids(1)))


def test_a_stale_group_is_replaced_and_a_used_one_refused(
    make: Callable[..., Cgroup], start: Callable[[Cgroup, str], int]
) -> None:
    group = make(LinuxResources(pids=LinuxPids(5)))
    start(group, "import time; time.sleep(60)")

    with pytest.raises(StockadeError, match="is in use"):
        cgroups.create(group.name, LinuxResources(pids=LinuxPids(6)))
    assert group.kill()
    again = cgroups.create(group.name, LinuxResources(pids=LinuxPids(6)))
    with open(again.enforced["pids-limit"], encoding="utf-8") as file:
        assert file.read().strip() == "6"
    assert again.remove()


def test_descriptors_are_closed_on_exec_and_none_is_left_open(make: Callable[..., Cgroup]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    group = make(LinuxResources(pids=LinuxPids(5)))
    group.stats()
    group.pids()
    assert not any(os.get_inheritable(fd) for fd in group.procs)
    assert group.kill()
    assert group.remove()
    with pytest.raises(StockadeError):
        cgroups.create(group.name, LinuxResources(pids=LinuxPids(5), devices=(LinuxDeviceCgroup(False, "x"),)))

    assert set(os.listdir("/proc/self/fd")) == before
    assert not cgroups.exists(group.paths)


def test_a_group_in_every_hierarchy_is_made_for_an_engine(make: Callable[..., Cgroup]) -> None:
    group = make(every=True)

    assert len(group.paths) == len(kernel.layout().hierarchies)
    name = group.name
    assert all(path.endswith(name) for path in group.paths)
    pid = os.fork()
    if pid == 0:
        group.attach(os.getpid())
        inside = all(path.endswith(name) for path in kernel.membership().values())
        os._exit(0 if inside else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_absolute_path_counts_from_the_top_of_the_hierarchy_and_a_relative_one_from_the_caller() -> None:
    name = f"stockade/test-{uuid.uuid4().hex[:12]}"
    memory = kernel.layout().v1["memory"]
    own = kernel.membership()["memory"].rstrip("/")
    for asked, expected in ((f"/{name}", f"{memory}/{name}"), (name, f"{memory}{own}/{name}")):
        group = cgroups.create(asked, need=["memory"])
        assert expected in group.paths
        assert group.remove()


def test_makers_and_removers_of_the_same_parent_do_not_disturb_each_other() -> None:
    pids = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            for turn in range(40):
                cgroups.create(f"stockade/test-{os.getpid()}-{number}-{turn}", need=["freezer"]).remove()
            os._exit(0)
        pids.append(pid)

    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0, 0]


def test_a_read_only_hierarchy_is_named_in_the_refusal() -> None:
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _remount_read_only_here("/sys/fs/cgroup/pids")
            cgroups.create("stockade/test-ro", LinuxResources(pids=LinuxPids(5)))
        except StockadeError as error:
            os.write(into, f"{error.message}|{error.hint}".encode())
        except BaseException as error:  # noqa: BLE001 - it must not reach pytest in the child
            os.write(into, repr(error).encode())
        os._exit(0)
    os.close(into)
    os.waitpid(pid, 0)
    with open(out, encoding="utf-8") as text:
        said = text.read()
    assert "pids-limit can't be enforced: /sys/fs/cgroup/pids/stockade/test-ro is on a read-only mount" in said
    assert "writable" in said


def _remount_read_only_here(path: str) -> None:
    """Make a mount read-only in a mount namespace of this process alone."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    private, bind, remount, read_only, recursive = 1 << 18, 4096, 32, 1, 16384
    for call in (
        libc.unshare(0x20000),
        libc.mount(None, b"/", None, private | recursive, None),
        libc.mount(path.encode(), path.encode(), None, bind, None),
        libc.mount(None, path.encode(), None, bind | remount | read_only, None),
    ):
        if call:
            raise OSError(ctypes.get_errno(), "mount")
