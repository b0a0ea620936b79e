"""What an engine's config.json means for control groups: places, values, records. Nothing here touches a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade.errors import StockadeError
from stockade.sandbox import cgroup_engine
from stockade.sandbox.cgroup_engine import Place, place
from stockade.sandbox.cgroup_handle import reopen
from stockade.sandbox.cgroup_limits import Write, writes
from stockade.sandbox.linux import cgroups
from stockade.sandbox.linux.cgroup_devices import ENGINE, policy
from stockade.sandbox.oci import spec as oci

if TYPE_CHECKING:
    from pathlib import Path

    from stockade.sandbox.cgroup_handle import EngineCgroup

DEFAULTS = oci.LinuxResources(  # what engines pass when nothing was asked for
    memory=oci.LinuxMemory(
        limit=0, reservation=0, swap=0, kernel=0, kernel_tcp=0, disable_oom_killer=False, use_hierarchy=False
    ),
    cpu=oci.LinuxCPU(shares=0, quota=0, period=0, burst=0, realtime_runtime=0, realtime_period=0, cpus="", mems=""),
    pids=oci.LinuxPids(0),
    block_io=oci.LinuxBlockIO(weight=0, leaf_weight=0),
    network=oci.LinuxNetwork(class_id=0),
)


def literal(resources: oci.LinuxResources, version: int) -> dict[str, str]:
    return {write.file: write.value for write in writes(resources, lambda _: version, literal=True)}


def required(resources: oci.LinuxResources, version: int) -> list[str]:
    return [write.limit for write in writes(resources, lambda _: version, literal=True) if not write.implied]


@pytest.mark.parametrize("version", [1, 2])
def test_values_that_mean_unset_are_not_written(version: int) -> None:
    assert literal(DEFAULTS, version) == {}


@pytest.mark.parametrize("version", [1, 2])
def test_values_that_mean_unlimited_may_lack_their_file(version: int) -> None:
    resources = oci.LinuxResources(
        memory=oci.LinuxMemory(limit=-1, swap=-1), pids=oci.LinuxPids(-1), cpu=oci.LinuxCPU(idle=0)
    )

    assert required(resources, version) == []
    assert "pids.max" in literal(resources, version)


@pytest.mark.parametrize(
    ("memory", "v1", "v2"),
    [
        (oci.LinuxMemory(limit=4096), {"memory.limit_in_bytes": "4096"}, {"memory.max": "4096"}),
        (
            oci.LinuxMemory(limit=4096, swap=12288),
            {"memory.limit_in_bytes": "4096", "memory.memsw.limit_in_bytes": "12288"},
            {"memory.max": "4096", "memory.swap.max": "8192"},
        ),
        (
            oci.LinuxMemory(limit=4096, swap=-1),
            {"memory.limit_in_bytes": "4096", "memory.memsw.limit_in_bytes": "-1"},
            {"memory.max": "4096", "memory.swap.max": "max"},
        ),
        (
            oci.LinuxMemory(limit=-1),
            {"memory.limit_in_bytes": "-1", "memory.memsw.limit_in_bytes": "-1"},
            {"memory.max": "max", "memory.swap.max": "max"},
        ),
    ],
)
def test_memory_and_swap_are_written_as_runc_writes_them(
    memory: oci.LinuxMemory, v1: dict[str, str], v2: dict[str, str]
) -> None:
    assert literal(oci.LinuxResources(memory=memory), 1) == v1
    assert literal(oci.LinuxResources(memory=memory), 2) == v2


@pytest.mark.parametrize(
    ("memory", "version"),
    [
        (oci.LinuxMemory(limit=8192, swap=4096), 1),
        (oci.LinuxMemory(limit=8192, swap=4096), 2),
        (oci.LinuxMemory(swap=4096), 2),
        (oci.LinuxMemory(limit=-1, swap=4096), 2),
    ],
)
def test_swap_that_contradicts_the_memory_limit_is_refused(memory: oci.LinuxMemory, version: int) -> None:
    with pytest.raises(StockadeError, match="memory"):
        literal(oci.LinuxResources(memory=memory), version)


def test_weights_of_devices_have_the_file_of_the_scheduler_and_a_fallback() -> None:
    weights = (oci.LinuxWeightDevice(8, 0, weight=500, leaf_weight=300),)
    resources = oci.LinuxResources(block_io=oci.LinuxBlockIO(leaf_weight=20, weight_device=weights))

    found = {write.file: write for write in writes(resources, lambda _: 1, literal=True)}
    assert found["blkio.leaf_weight"].value == "20"
    assert found["blkio.leaf_weight_device"].value == "8:0 300"
    assert found["blkio.bfq.weight_device"].value == "8:0 500"
    assert found["blkio.bfq.weight_device"].fallback == Write(
        "blkio-weight-device", "blkio", "blkio.weight_device", "8:0 500", "line"
    )
    other = {write.file: write for write in writes(resources, lambda _: 2, literal=True)}
    assert other["io.bfq.weight"].fallback == Write("blkio-weight-device", "io", "io.weight", "8:0 4950", "line")
    assert [write.limit for write in writes(resources, lambda _: 2) if not write.file] == [
        "blkio-leaf-weight",
        "blkio-leaf-weight-device",
    ]


def test_unified_is_written_line_by_line_and_only_where_the_controller_is_on_v2() -> None:
    resources = oci.LinuxResources(unified={"io.max": "8:0 rbps=1\n8:16 wbps=2\n", "cgroup.max.depth": "3"})

    there = writes(resources, lambda _: 2, literal=True)
    assert [(write.file, write.value) for write in there] == [
        ("io.max", "8:0 rbps=1"),
        ("io.max", "8:16 wbps=2"),
        ("cgroup.max.depth", "3"),
    ]
    assert [write.file for write in writes(resources, lambda _: 1, literal=True)] == ["", "", "cgroup.max.depth"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", Place(("ID",), absolute=False, explicit=False)),
        ("/docker/ID", Place(("docker", "ID"), absolute=True, explicit=True)),
        ("pod/ID", Place(("pod", "ID"), absolute=False, explicit=True)),
        ("/../../etc/x", Place(("etc", "x"), absolute=True, explicit=True)),
        ("../../x", Place(("x",), absolute=False, explicit=True)),
        ("//a//b/", Place(("a", "b"), absolute=True, explicit=True)),
        ("/", Place(("ID",), absolute=True, explicit=False)),
    ],
)
def test_a_cgroups_path_never_leaves_its_hierarchy(path: str, found: Place) -> None:
    assert place(path, "ID") == found


def test_a_cgroups_path_with_a_newline_is_refused() -> None:
    with pytest.raises(StockadeError, match="cgroupsPath"):
        place("/a\nb", "ID")


def test_groups_are_found_again_by_their_record() -> None:
    record = ["cpu,cpuacct:/sys/fs/cgroup/cpu,cpuacct/x", "name=systemd:/sys/fs/cgroup/systemd/x", ":/sys/fs/cgroup/x"]

    cgroup = reopen([*record, "@user:x.scope"])
    assert cgroup.record == record
    assert [group.hierarchy.version for group in cgroup.groups] == [1, 1, 2]
    assert cgroup.v1_paths() == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/x",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/x",
        "name=systemd": "/sys/fs/cgroup/systemd/x",
    }


@pytest.mark.parametrize("line", ["", "/sys/fs/cgroup/x", "cpu:x", "cpu:/sys/../etc"])
def test_a_record_that_names_no_group_is_refused(line: str) -> None:
    with pytest.raises(StockadeError, match="names no control group"):
        reopen([line])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b"], "missing <controller>: prefix"),
        (["cpu,:a"], "empty <controller> prefix"),
        (["cpu:a", "cpu:b"], "cpu specified multiple times"),
        (["nonsense:a"], "no group with the nonsense controller"),
        (["../x"], "bad sub cgroup path: ../x"),
    ],
)
def test_a_sub_cgroup_that_makes_no_sense_is_refused(words: list[str], message: str) -> None:
    cgroup = reopen(["cpu:/nonexistent/cgroup/x"])
    with pytest.raises(StockadeError, match=message):
        cgroup.below(words)


def groups_of_an_init(
    directory: Path, monkeypatch: pytest.MonkeyPatch, own: str, *, enabled: str
) -> tuple[EngineCgroup, EngineCgroup]:
    """Give the groups of a container on cgroup2, and those for a process beside its init, which is in `own`."""
    directory.joinpath("box").mkdir()
    directory.joinpath("box/cgroup.subtree_control").write_text(enabled)
    unified = cgroups.Hierarchy(2, (), str(directory))
    monkeypatch.setattr(cgroups, "membership", lambda _: {"": own})
    monkeypatch.setattr(cgroups, "layout", lambda: cgroups.Layout((unified,)))
    cgroup = reopen([f":{directory}/box"])
    return cgroup, cgroup.beside(42)


def test_a_process_goes_beside_an_init_that_left_the_group_to_manage_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup, beside = groups_of_an_init(tmp_path, monkeypatch, "/box/init.scope", enabled="memory pids\n")
    assert beside.record == [f":{tmp_path}/box/init.scope"]
    cgroup.close()


@pytest.mark.parametrize(
    ("own", "enabled"), [("/box/init.scope", "\n"), ("/elsewhere", "memory\n"), ("/box", "memory")]
)
def test_a_process_goes_into_the_containers_own_group_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, enabled: str
) -> None:
    cgroup, beside = groups_of_an_init(tmp_path, monkeypatch, own, enabled=enabled)
    assert beside.record == cgroup.record
    cgroup.close()


def layout_without_our_group() -> cgroups.Layout:
    """A container of another engine sees a part of a hierarchy, in which its own group isn't."""
    return cgroups.Layout((cgroups.Hierarchy(1, ("pids",), "/sys/fs/cgroup/pids", "/another/group"),))


def test_who_cant_see_his_own_group_goes_without_if_rootless_and_nothing_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cgroups, "membership", lambda: {"pids": "/mine"})
    monkeypatch.setattr(cgroup_engine, "privileged", lambda: False)
    layout = layout_without_our_group()

    assert cgroup_engine.create(place("", "ID"), None, rootless=True, layout=layout).record == []
    with pytest.raises(StockadeError, match="pids-limit can't be enforced: the caller's own group is not visible"):
        cgroup_engine.create(place("", "ID"), oci.LinuxResources(pids=oci.LinuxPids(5)), rootless=True, layout=layout)
    with pytest.raises(StockadeError, match="the container's cgroup can't be made: the caller's own group"):
        cgroup_engine.create(place("", "ID"), None, layout=layout)


def test_every_container_may_make_nodes_and_open_only_the_harmless_ones() -> None:
    found = policy((oci.LinuxDeviceCgroup(allow=False, access="rwm"),), ENGINE)

    assert found.permits("c", 1, 3, "rw")
    assert found.permits("c", 10, 200, "rw")
    assert found.permits("b", 8, 0, "m")
    assert not found.permits("b", 8, 0, "r")
    assert not found.permits("c", 1, 11, "r")
