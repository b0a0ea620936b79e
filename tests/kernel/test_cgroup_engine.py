"""An engine's control groups on this kernel: in every hierarchy, with limits that hold, nothing left of a failure."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stockade.errors import StockadeError
from stockade.sandbox import cgroup_engine, cgroup_oom, cgroup_stats
from stockade.sandbox.cgroup_engine import place
from stockade.sandbox.linux import calls, cgroups
from stockade.sandbox.oci import spec as oci

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stockade.sandbox.cgroup_handle import EngineCgroup

pytestmark = pytest.mark.kernel
MIB = 1 << 20
LAYOUT = cgroups.layout()
V1 = pytest.mark.skipif(not LAYOUT.v1.get("memory"), reason="this machine has cgroup2 alone")
DENY_ALL = oci.LinuxDeviceCgroup(allow=False, access="rwm")
DOCKER = oci.LinuxResources(  # what docker 20.10 passes for `docker run` without options
    devices=(DENY_ALL, *[oci.LinuxDeviceCgroup(allow=True, type="c", major=1, minor=m, access="rwm") for m in (3, 5)]),
    memory=oci.LinuxMemory(disable_oom_killer=False),
    cpu=oci.LinuxCPU(shares=0),
    pids=oci.LinuxPids(2048),
    block_io=oci.LinuxBlockIO(weight=0),
)
OPEN = """
import os
for path in ("/dev/null", "/dev/kmsg"):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        print("opened")
    except PermissionError as error:
        print(error.strerror)
with __import__("tempfile").TemporaryDirectory() as place:
    os.mknod(place + "/node", 0o20600, os.makedev(1, 11))
    print("made")
"""


@pytest.fixture
def path() -> Iterator[str]:
    """A path for a group of the test's own; what is left below it afterwards fails the test."""
    top = f"stockade-test-{uuid.uuid4().hex[:12]}"
    yield f"/{top}/ID"
    left = [str(found) for h in LAYOUT.hierarchies for found in Path(h.directory, top).glob("*") if found.is_dir()]
    for hierarchy in LAYOUT.hierarchies:
        for found in (*left, f"{hierarchy.directory}/{top}"):
            if os.path.isdir(found):
                os.rmdir(found)
    assert left == []


@pytest.fixture
def make(path: str) -> Iterator[Callable[..., EngineCgroup]]:
    """Make the groups of a container; they are killed and removed at the end."""
    made: list[EngineCgroup] = []

    def create(resources: oci.LinuxResources | None = None) -> EngineCgroup:
        made.append(cgroup_engine.create(place(path, "ID"), resources))
        return made[-1]

    yield create
    for cgroup in made:
        assert cgroup.destroy()


def spawn(cgroup: EngineCgroup, code: str, stdout: int | None = None) -> int:
    """Start Python code in the groups and give its pid."""
    hold, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(hold, 0)
        os.close(release)
        if stdout is not None:
            os.dup2(stdout, 1)
        os.read(0, 1)
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code])
    os.close(hold)
    cgroup.attach(pid)
    os.close(release)
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def output(cgroup: EngineCgroup, code: str) -> list[str]:
    out, into = os.pipe()
    pid = spawn(cgroup, code, into)
    os.close(into)
    with open(out, encoding="utf-8") as lines:
        text = lines.read()
    assert ended(pid) == 0
    return text.split("\n")[:-1]


def read(cgroup: EngineCgroup, file: str) -> str:
    found = [Path(group.path, file) for group in cgroup.groups if Path(group.path, file).exists()]
    return found[0].read_text().strip()


def test_a_container_has_a_group_in_every_hierarchy_and_nothing_is_left_of_it(path: str) -> None:
    cgroup = cgroup_engine.create(place(path, "ID"), DOCKER)

    assert {group.path for group in cgroup.groups} == {h.directory + path for h in LAYOUT.hierarchies}
    assert len(cgroup.procs) == len(LAYOUT.hierarchies)
    assert cgroup.notes == {}
    again = cgroup_engine.reopen(cgroup.record)
    cgroup.close()
    assert again.exists()
    assert again.remove()
    assert not again.exists()


def test_an_empty_path_is_a_group_below_the_callers_own() -> None:
    identity = f"stockade-test-{uuid.uuid4().hex[:12]}"
    own = cgroups.membership()
    cgroup = cgroup_engine.create(place("", identity), None)
    try:
        for group in cgroup.groups:
            key = "" if group.hierarchy.version == 2 else group.hierarchy.controllers[0]
            beside = group.hierarchy.version == 2 and own[key] != "/"
            base = own[key].rpartition("/")[0] if beside else own[key].rstrip("/")
            assert group.path == f"{group.hierarchy.directory}{base}/{identity}"
    finally:
        assert cgroup.remove()


def test_limits_hold_and_defaults_change_nothing(make: Callable[..., EngineCgroup]) -> None:
    resources = DOCKER.replace(
        memory=oci.LinuxMemory(limit=64 * MIB, swap=64 * MIB, reservation=32 * MIB),
        cpu=oci.LinuxCPU(shares=512, quota=50000, period=200000, burst=1000, cpus="0", mems="0", realtime_period=0),
    )
    if LAYOUT.controller("cpuset") is None:
        resources = resources.replace(cpu=resources.cpu.replace(cpus="", mems="")) if resources.cpu else resources
    cgroup = make(resources)

    assert read(cgroup, "pids.max") == "2048"
    if LAYOUT.v1.get("memory"):
        assert read(cgroup, "memory.limit_in_bytes") == read(cgroup, "memory.memsw.limit_in_bytes") == str(64 * MIB)
        assert read(cgroup, "cpu.cfs_quota_us") == "50000"
        assert read(cgroup, "cpuset.cpus") == "0"
    else:
        assert read(cgroup, "memory.max") == str(64 * MIB)
        assert read(cgroup, "cpu.max") == "50000 200000"


def test_devices_are_denied_but_for_the_harmless_ones_whose_nodes_may_be_made(
    make: Callable[..., EngineCgroup],
) -> None:
    assert output(make(oci.LinuxResources()), OPEN) == ["opened", "Operation not permitted", "made"]


def test_a_privileged_container_has_every_device(make: Callable[..., EngineCgroup]) -> None:
    everything = oci.LinuxDeviceCgroup(allow=True, access="rwm")
    assert output(make(oci.LinuxResources(devices=(everything,))), OPEN) == ["opened", "opened", "made"]


@pytest.mark.parametrize(
    ("resources", "limit"),
    [
        (oci.LinuxResources(network=oci.LinuxNetwork(class_id=5)), "network-class"),
        (oci.LinuxResources(rdma={"mlx": oci.LinuxRdma(hca_handles=1)}), "rdma"),
        (oci.LinuxResources(cpu=oci.LinuxCPU(cpus="4000")), "cpuset-cpus"),
        (oci.LinuxResources(unified={"nonsense.max": "1"}), "unified nonsense.max"),
    ],
)
def test_a_limit_that_cant_be_had_is_refused_and_leaves_nothing(
    path: str, resources: oci.LinuxResources, limit: str
) -> None:
    with pytest.raises(StockadeError, match=f"^{limit} can't be enforced: "):
        cgroup_engine.create(place(path, "ID"), resources)
    assert not [h for h in LAYOUT.hierarchies if os.path.exists(h.directory + path.rpartition("/")[0])]


@V1
def test_a_file_of_cgroup2_is_refused_where_its_controller_is_on_v1(path: str) -> None:
    with pytest.raises(StockadeError, match=r"^unified memory\.max can't be enforced: cgroup v1 has no such limit"):
        cgroup_engine.create(place(path, "ID"), oci.LinuxResources(unified={"memory.max": "1M"}))


def test_a_group_with_processes_in_it_is_not_taken_over(make: Callable[..., EngineCgroup], path: str) -> None:
    pid = spawn(make(), "import time; time.sleep(60)")
    try:
        with pytest.raises(StockadeError, match=r"container's cgroup is not empty: 1 process\(es\) found"):
            cgroup_engine.create(place(path, "ID"), None)
    finally:
        os.kill(pid, signal.SIGKILL)
        ended(pid)


def test_an_empty_group_that_is_there_is_used_as_it_is(path: str) -> None:
    pids = LAYOUT.controller("pids")
    assert pids is not None
    cgroup_engine.create(place(path, "ID"), oci.LinuxResources(pids=oci.LinuxPids(7))).close()

    cgroup = cgroup_engine.create(place(path, "ID"), None)
    try:
        assert read(cgroup, "pids.max") == "7"
    finally:
        assert cgroup.remove()


def test_a_container_is_refused_below_a_frozen_group(make: Callable[..., EngineCgroup], path: str) -> None:
    above = make()
    above.freeze()
    try:
        with pytest.raises(StockadeError, match="container's cgroup unexpectedly frozen"):
            cgroup_engine.create(place(f"{path}/below", "ID"), None)
    finally:
        above.thaw()


def test_a_user_without_delegated_groups_goes_without_if_nothing_was_asked(
    forked: Callable[[Callable[[], object]], object], path: str
) -> None:
    def as_somebody() -> list[object]:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        found: list[object] = [cgroup_engine.create(place("", "ID"), DOCKER.replace(pids=None), rootless=True).record]
        for where, resources, rootless in (
            (path, None, True),
            ("", oci.LinuxResources(pids=oci.LinuxPids(5)), True),
            ("", None, False),
        ):
            try:
                cgroup_engine.create(place(where, "ID"), resources, rootless=rootless)
            except StockadeError as error:
                found.append(error.message.split(":")[0])
        return found

    assert forked(as_somebody) == [
        [],
        "the container's cgroup can't be made",
        "pids-limit can't be enforced",
        "the container's cgroup can't be made",
    ]


def test_read_only_groups_are_done_without_unless_something_needs_them(
    forked: Callable[[Callable[[], tuple[list[str], str, str]]], tuple[list[str], str, str]], path: str
) -> None:
    everything = oci.LinuxDeviceCgroup(allow=True, access="rwm")

    def below_read_only_mounts() -> tuple[list[str], str, str]:
        calls.unshare(0x20000)  # CLONE_NEWNS
        calls.mount(None, "/", None, 1 << 18 | 1 << 14)  # MS_PRIVATE | MS_REC
        for hierarchy in LAYOUT.hierarchies:
            calls.mount(None, hierarchy.directory, None, 32 | 4096 | 1)  # MS_REMOUNT | MS_BIND | MS_RDONLY
        allowed = oci.LinuxResources(devices=(everything,))
        messages = []
        for resources in (oci.LinuxResources(devices=(DENY_ALL,)), allowed.replace(pids=oci.LinuxPids(5))):
            with pytest.raises(StockadeError) as refused:
                cgroup_engine.create(place(path, "ID"), resources)
            messages.append(refused.value.message)
        return cgroup_engine.create(place(path, "ID"), allowed).record, messages[0], messages[1]

    record, devices, pids = forked(below_read_only_mounts)
    assert record == []
    assert devices.startswith("device rules can't be enforced: ")
    assert pids.startswith("pids-limit can't be enforced: ")
    assert devices.endswith(" is on a read-only mount")
    assert pids.endswith(" is on a read-only mount")


@V1
def test_an_update_finds_the_order_that_the_kernel_takes(make: Callable[..., EngineCgroup]) -> None:
    def limits(size: int) -> oci.LinuxResources:
        return oci.LinuxResources(memory=oci.LinuxMemory(limit=size, swap=size))

    cgroup = make(limits(64 * MIB))
    for size in (256 * MIB, 32 * MIB):
        cgroup_engine.update(cgroup, limits(size))
        assert read(cgroup, "memory.limit_in_bytes") == read(cgroup, "memory.memsw.limit_in_bytes") == str(size)


def test_an_update_changes_what_is_named_alone(make: Callable[..., EngineCgroup]) -> None:
    cgroup = make(oci.LinuxResources(pids=oci.LinuxPids(7), memory=oci.LinuxMemory(limit=64 * MIB)))

    cgroup_engine.update(cgroup, DOCKER.replace(pids=oci.LinuxPids(0), devices=()))
    assert read(cgroup, "pids.max") == "7"
    cgroup_engine.update(cgroup, oci.LinuxResources(pids=oci.LinuxPids(-1)))
    assert read(cgroup, "pids.max") == "max"
    assert read(cgroup, "memory.limit_in_bytes" if LAYOUT.v1.get("memory") else "memory.max") == str(64 * MIB)


def test_a_signal_reaches_every_process_and_one_that_is_paused_stays_so(make: Callable[..., EngineCgroup]) -> None:
    cgroup = make()
    pids = [spawn(cgroup, "import time; time.sleep(60)") for _ in range(3)]
    cgroup.freeze()
    cgroup.signal(signal.SIGTERM)
    # cgroup2 lets a fatal signal end frozen processes, so what was asked for is looked at, not what moves meanwhile
    asked = "cgroup.freeze" if LAYOUT.unified else "freezer.state"
    assert read(cgroup, asked) in {"1", "FROZEN", "FREEZING"}
    cgroup.thaw()
    assert [ended(pid) for pid in pids] == [-signal.SIGTERM] * 3


def test_what_still_runs_and_what_it_nested_is_gone_after_destroy(make: Callable[..., EngineCgroup]) -> None:
    cgroup = make()
    for group in cgroup.groups:
        os.mkdir(f"{group.path}/nested")
    pid = spawn(cgroup, "import time; time.sleep(60)")
    cgroup.freeze()
    waited: list[int] = []
    reaper = threading.Thread(target=lambda: waited.append(ended(pid)))
    reaper.start()
    assert cgroup_engine.reopen(cgroup.record).destroy()
    reaper.join()
    assert waited == [-signal.SIGKILL]
    assert not cgroup.exists()


def test_running_out_of_memory_is_noticed_and_removal_is_no_such_event(path: str) -> None:
    cgroup = cgroup_engine.create(
        place(path, "ID"), oci.LinuxResources(memory=oci.LinuxMemory(limit=32 * MIB, swap=32 * MIB))
    )
    watch = cgroup_oom.watch(cgroup)
    assert watch is not None
    poll = select.poll()
    poll.register(watch.fd, watch.events)
    assert poll.poll(0) == []
    pid = spawn(cgroup, "memory = bytearray(96 << 20)")
    assert ended(pid) == -signal.SIGKILL
    assert poll.poll(5000)
    assert watch.count() >= 1
    assert watch.count() == 0
    for group in cgroup.groups:
        os.rmdir(group.path)
    poll.poll(1000)
    assert watch.count() == 0
    watch.close()
    assert cgroup.remove()


def test_statistics_count_what_was_used(make: Callable[..., EngineCgroup]) -> None:
    cgroup = make(oci.LinuxResources(pids=oci.LinuxPids(9)))
    pid = spawn(cgroup, "memory = bytearray(40 << 20); sum(range(10**6))")
    assert ended(pid) == 0
    data = cgroup_stats.read(cgroup)

    assert data["cpu"]["usage"]["total"] > 5_000_000
    assert data["memory"]["usage"]["max"] > 40 * MIB
    assert data["pids"] == {"limit": 9}
    assert data["network_interfaces"] is None
    assert list(data) == [
        "cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces",
    ]  # fmt: skip


@V1
def test_a_process_can_join_a_nested_group_by_controller(make: Callable[..., EngineCgroup]) -> None:
    cgroup = make()
    os.mkdir(f"{cgroup.v1_paths()['pids']}/inner")
    below = cgroup.below(["pids:inner"])
    try:
        assert below.v1_paths() == cgroup.v1_paths() | {"pids": f"{cgroup.v1_paths()['pids']}/inner"}
    finally:
        below.close()
        assert below.v1_paths()["pids"].endswith("/inner")
        os.rmdir(below.v1_paths()["pids"])
    with pytest.raises(StockadeError, match="can't be joined"):
        cgroup.below(["pids:absent"])
