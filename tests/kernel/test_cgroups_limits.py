"""Limits of real control groups, judged by what happens to a process in them; each once without the group too."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from stockade.errors import StockadeError
from stockade.sandbox import cgroups
from stockade.sandbox.linux import cgroups as kernel
from stockade.sandbox.oci.spec import (
    LinuxBlockIO,
    LinuxCPU,
    LinuxDeviceCgroup,
    LinuxMemory,
    LinuxNetwork,
    LinuxPids,
    LinuxResources,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stockade.sandbox.cgroups import Cgroup

pytestmark = pytest.mark.kernel
MIB = 1 << 20

ANONYMOUS = "memory = bytearray(96 << 20)"
MEMFD = """
import os
fd = os.memfd_create("hog")
for _ in range(96):
    os.write(fd, b"x" * (1 << 20))
"""
FORKS = """
import os, sys
made = 0
try:
    for _ in range(30):
        if os.fork() == 0:
            os.read(0, 1)
            os._exit(0)
        made += 1
except BlockingIOError:
    pass
print(made)
"""
SPIN = """
import time
end = time.monotonic() + 0.5
while time.monotonic() < end:
    pass
print(time.process_time())
"""
OPEN = """
import os
for path in ("/dev/null", "/dev/kmsg"):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        print("opened")
    except PermissionError as error:
        print(error.strerror)
"""
MKNOD = """
import os, sys, tempfile
with tempfile.TemporaryDirectory() as place:
    for minor in (3, 11):
        try:
            os.mknod(place + "/node", 0o20600, os.makedev(1, minor))
            os.unlink(place + "/node")
            print("made")
        except PermissionError as error:
            print(error.strerror)
"""
NO_SWAP = LinuxMemory(limit=48 * MIB, swap=48 * MIB)
DENY_ALL = LinuxDeviceCgroup(allow=False, access="rwm")


@pytest.fixture
def make() -> Iterator[Callable[..., Cgroup]]:
    """Make groups with a name of their own; whatever a test leaves in them is killed and removed."""
    made: list[Cgroup] = []

    def create(resources: LinuxResources | None = None, **options: object) -> Cgroup:
        group = cgroups.create(f"stockade/test-{uuid.uuid4().hex[:12]}", resources, **options)  # type: ignore[arg-type]
        made.append(group)
        return group

    yield create
    for group in made:
        if paths := group.paths:
            assert cgroups.remove_path(paths)
            assert not cgroups.exists(paths)
        group.close()


def run(code: str, group: Cgroup | None = None) -> tuple[int, list[str]]:
    """Run Python code, in a group if one is given; the exit code as of subprocess, and the lines printed."""
    out, into = os.pipe()
    hold, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(into, 1)
        os.dup2(hold, 0)
        os.close(release)
        os.read(0, 1)
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code])
    os.close(into)
    os.close(hold)
    try:
        if group:
            group.attach(pid)
        os.write(release, b"1")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(release)
    with open(out, encoding="utf-8") as lines:
        return status, lines.read().split("\n")[:-1]


@pytest.mark.parametrize("hog", [ANONYMOUS, MEMFD], ids=["anonymous memory", "memfd"])
def test_a_process_that_takes_more_memory_than_its_limit_is_killed_and_counted(
    make: Callable[..., Cgroup], hog: str
) -> None:
    group = make(LinuxResources(memory=NO_SWAP))

    assert run(hog) == (0, [])
    assert run(hog, group) == (-signal.SIGKILL, [])
    stats = group.stats()
    assert stats.oom_kills == 1
    assert stats.memory_peak is not None
    assert 40 * MIB < stats.memory_peak <= 48 * MIB


def test_a_kill_in_a_group_that_the_payload_nested_is_counted_too(make: Callable[..., Cgroup]) -> None:
    group = make(LinuxResources(memory=NO_SWAP))
    memory = next(path for path in group.paths if "/memory/" in path)
    os.mkdir(f"{memory}/inner")

    inner = f"import os; open('{memory}/inner/cgroup.procs', 'w').write(str(os.getpid()))\n"
    assert run(inner + ANONYMOUS, group)[0] == -signal.SIGKILL
    assert group.stats().oom_kills == 1


def test_the_pids_limit_stops_forks(make: Callable[..., Cgroup]) -> None:
    group = make(LinuxResources(pids=LinuxPids(8)))

    assert run(FORKS) == (0, ["30"])
    assert run(FORKS, group) == (0, ["7"])
    stats = group.stats()
    assert (stats.pids_peak, stats.pids_refused) == (8, 1)


def test_the_cpu_quota_throttles(make: Callable[..., Cgroup]) -> None:
    group = make(LinuxResources(cpu=LinuxCPU(quota=10000, period=50000)), need=["cpuacct"])

    free = float(run(SPIN)[1][0])
    held = float(run(SPIN, group)[1][0])
    stats = group.stats()
    assert held < free / 2
    assert stats.cpu_throttled is not None
    assert stats.cpu_throttled >= 5
    assert stats.cpu_throttled_usec is not None
    assert stats.cpu_throttled_usec > 100_000
    assert stats.cpu_usec == pytest.approx(held * 1e6, rel=0.5)


def test_the_cpuset_pins_to_its_cpus(make: Callable[..., Cgroup]) -> None:
    last = max(os.sched_getaffinity(0))
    group = make(LinuxResources(cpu=LinuxCPU(cpus=str(last))))
    show = "import os; print(sorted(os.sched_getaffinity(0)))"

    assert run(show) == (0, [str(sorted(os.sched_getaffinity(0)))])
    assert run(show, group) == (0, [f"[{last}]"])


def only_v2() -> kernel.Layout:
    unified = kernel.layout().unified
    assert unified, "this test needs a cgroup2 mount"
    return kernel.Layout((unified,))


@pytest.mark.parametrize("where", [kernel.layout, only_v2], ids=["v1 controller", "BPF program"])
def test_the_device_policy_denies_what_no_rule_allows(
    make: Callable[..., Cgroup], where: Callable[[], kernel.Layout]
) -> None:
    denied = make(LinuxResources(devices=(DENY_ALL,)), layout=where())
    kmsg = LinuxDeviceCgroup(allow=True, type="c", major=1, minor=11, access="r")
    allowed = make(LinuxResources(devices=(DENY_ALL, kmsg)), layout=where())

    refusal = os.strerror(1)
    assert run(OPEN) == (0, ["opened", "opened"])
    assert run(OPEN, denied) == (0, ["opened", refusal])
    assert run(OPEN, allowed) == (0, ["opened", "opened"])
    assert run(MKNOD) == (0, ["made", "made"])
    assert run(MKNOD, denied) == (0, ["made", refusal])


def test_a_limit_that_this_machine_cannot_hold_refuses_the_launch_and_leaves_nothing() -> None:
    name = f"stockade/test-{uuid.uuid4().hex[:12]}"
    resources = LinuxResources(memory=NO_SWAP, cpu=LinuxCPU(cpus="4000"))

    with pytest.raises(StockadeError, match="cpuset-cpus can't be enforced: the kernel refuses '4000'") as caught:
        cgroups.create(name, resources)

    assert "--best-effort" in caught.value.hint
    assert not [path for h in kernel.layout().hierarchies if os.path.exists(path := f"{h.directory}/{name}")]
    assert not os.path.exists(f"{kernel.layout().v1['memory']}{kernel.membership()['memory']}/{name}")


def test_best_effort_keeps_the_other_limits_and_says_which_it_lacks(make: Callable[..., Cgroup]) -> None:
    resources = LinuxResources(memory=NO_SWAP, cpu=LinuxCPU(cpus="4000"), network=LinuxNetwork(class_id=1))

    group = make(resources, best_effort=True)

    assert set(group.refused) == {"cpuset-cpus", "network-class"}
    assert set(group.enforced) == {"memory", "memory-swap"}
    assert run(ANONYMOUS, group)[0] == -signal.SIGKILL


def test_a_user_without_privilege_is_told_why_v1_holds_no_limit(unprivileged: object) -> None:
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setuid(unprivileged.pw_uid)  # type: ignore[attr-defined] # the stubs leave it out
        try:
            cgroups.create("stockade/test-user", LinuxResources(pids=LinuxPids(8)))
        except StockadeError as error:
            os.write(into, f"{error.message}\n{error.hint}".encode())
        os._exit(0)
    os.close(into)
    os.waitpid(pid, 0)
    with open(out, encoding="utf-8") as text:
        message, hint = text.read().split("\n")
    assert "pids-limit can't be enforced" in message
    assert "cgroup v1 can't be delegated" in message
    assert "root" in hint


def test_a_limit_of_bytes_may_be_rounded_to_a_page_and_no_further(make: Callable[..., Cgroup]) -> None:
    group = make(LinuxResources(memory=LinuxMemory(limit=48 * MIB + 5)))

    with open(group.enforced["memory"], encoding="utf-8") as file:
        assert int(file.read()) == 48 * MIB
    with open(group.enforced["memory-swap"], encoding="utf-8") as file:
        assert int(file.read()) == 96 * MIB


def test_update_raises_memory_and_swap_together_in_the_order_the_kernel_wants(make: Callable[..., Cgroup]) -> None:
    group = make(LinuxResources(memory=NO_SWAP))

    for size in (200, 30, 100):
        cgroups.update(group, LinuxResources(memory=LinuxMemory(limit=size * MIB, swap=size * MIB)))
        with open(group.enforced["memory"], encoding="utf-8") as file:
            assert int(file.read()) == size * MIB
    assert run(ANONYMOUS, group)[0] == 0


def test_the_weight_of_block_io_reaches_the_scheduler_of_this_kernel(make: Callable[..., Cgroup]) -> None:
    group = make(LinuxResources(block_io=LinuxBlockIO(weight=200)), best_effort=True)

    assert "blkio-weight" in group.enforced | group.refused
    for path in [group.enforced[name] for name in group.enforced]:
        with open(path, encoding="utf-8") as file:
            assert file.read().split()[-1] == "200"


def test_without_limits_no_group_is_made_and_it_costs_microseconds() -> None:
    start = time.perf_counter()
    group = cgroups.create("stockade/test-none", LinuxResources())
    spent = time.perf_counter() - start

    assert (group.paths, group.procs, group.enforced) == ((), (), {})
    assert spent < 0.002
    assert group.kill()
    assert group.remove()


def test_the_effective_limit_of_a_process_is_the_lowest_above_it(make: Callable[..., Cgroup]) -> None:
    group = make(LinuxResources(memory=NO_SWAP, pids=LinuxPids(50), cpu=LinuxCPU(quota=150000, cpus="0")))
    memory = next(path for path in group.paths if "/memory/" in path)
    os.mkdir(f"{memory}/inner")
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        group.attach(os.getpid())
        with open(f"{memory}/inner/cgroup.procs", "w", encoding="ascii") as procs:
            procs.write("0")
        os.close(out)
        os.write(into, b"1")
        signal.pause()
    os.read(out, 1)
    try:
        found = kernel.limits_of(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    assert {name: limit.value for name, limit in found.limits.items()} == {
        "memory": 48 * MIB,
        "memory_swap": 48 * MIB,
        "pids": 50,
        "cpu": 1.5,
        "cpuset_cpus": 1,
        "cpuset_mems": None,
    }
    assert found.limits["memory"].source == f"{memory}/memory.limit_in_bytes"
    assert found.usage["memory"] > 0
