"""Reading of control groups, over trees as machines of each kind show them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from stockade.sandbox import cgroup_place
from stockade.sandbox.linux import cgroups

if TYPE_CHECKING:
    from pathlib import Path

UNIFIED = "30 23 0:26 {root} /sys/fs/cgroup {options} shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "{id} 31 0:{id} {root} /sys/fs/cgroup/{name} {options} shared:9 - cgroup cgroup rw,{controllers}"
TMPFS = "31 23 0:28 / /sys/fs/cgroup ro,nosuid shared:3 - tmpfs tmpfs ro,mode=755"


def v1(name: str, controllers: str, *, root: str = "/", options: str = "rw,nosuid", number: int = 40) -> str:
    return V1.format(id=number, name=name, controllers=controllers, root=root, options=options)


def unified(root: str = "/", options: str = "rw,nosuid") -> str:
    return UNIFIED.format(root=root, options=options)


def tree(top: Path, mounts: list[str], groups: str, files: dict[str, str]) -> str:
    """Write a recorded machine: mountinfo, the membership of process 42, and files below /sys/fs/cgroup."""
    content = {"proc/self/mountinfo": "\n".join(mounts) + "\n", "proc/42/cgroup": groups}
    content |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in content.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return str(top)


V2_FILES = {
    "cgroup.procs": "1\n",
    "cgroup.controllers": "cpuset cpu io memory pids\n",
    "cpuset.cpus.effective": "0-7\n",
    "cpuset.mems.effective": "0\n",
    "user.slice/memory.max": "1073741824\n",
    "user.slice/memory.swap.max": "0\n",
    "user.slice/pids.max": "max\n",
    "user.slice/app/cgroup.procs": "42\n",
    "user.slice/app/memory.max": "max\n",
    "user.slice/app/memory.current": "4096\n",
    "user.slice/app/memory.swap.max": "max\n",
    "user.slice/app/pids.max": "100\n",
    "user.slice/app/pids.current": "3\n",
    "user.slice/app/cpu.max": "150000 100000\n",
    "user.slice/app/cpu.stat": "usage_usec 1234\nuser_usec 1000\n",
    "user.slice/app/cpuset.cpus.effective": "0-1,4\n",
    "user.slice/app/cpuset.mems.effective": "0\n",
}


def test_on_v2_the_lowest_limit_up_the_tree_counts_and_its_file_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path, [unified()], "0::/user.slice/app\n", V2_FILES)

    where = cgroups.layout(root)
    found = cgroups.limits_of(42, where, root)

    assert (where.v1, where.v2, where.hybrid) == ({}, "/sys/fs/cgroup", False)
    assert where.v2_controllers == ("cpuset", "cpu", "io", "memory", "pids")
    base = "/sys/fs/cgroup/user.slice"
    assert {name: (limit.value, limit.source) for name, limit in found.limits.items()} == {
        "memory": (1 << 30, f"{base}/memory.max"),
        "swap": (0, f"{base}/memory.swap.max"),
        "pids": (100, f"{base}/app/pids.max"),
        "cpu": (1.5, f"{base}/app/cpu.max"),
        "cpuset_cpus": (3, f"{base}/app/cpuset.cpus.effective"),
        "cpuset_mems": (None, f"{base}/app/cpuset.mems.effective"),
    }
    assert found.usage == {"memory": 4096, "pids": 3, "cpu_usec": 1234}
    assert found.unknown == {}


def test_a_process_in_the_root_group_is_limited_by_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path, [unified()], "0::/\n", {"cgroup.procs": "", "cgroup.controllers": "memory pids"})

    found = cgroups.limits_of(42, root=root)

    assert {name: limit.value for name, limit in found.limits.items()} == dict.fromkeys(("memory", "swap", "pids"))
    assert set(found.unknown) == {"cpu", "cpuset_cpus", "cpuset_mems"}


def test_controllers_mounted_together_share_a_directory_and_named_hierarchies_are_kept(tmp_path: Path) -> None:
    mounts = [TMPFS, v1("cpu,cpuacct", "cpu,cpuacct"), v1("systemd", "xattr,name=systemd"), v1("memory", "memory")]
    files = {f"{name}/cgroup.procs": "" for name in ("cpu,cpuacct", "systemd", "memory")}
    root = tree(tmp_path, mounts, "", files)

    assert cgroups.layout(root).v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "name=systemd": "/sys/fs/cgroup/systemd",
        "memory": "/sys/fs/cgroup/memory",
    }


def test_v1_controllers_beside_cgroup2_are_hybrid_and_systemds_own_hierarchy_alone_is_not(tmp_path: Path) -> None:
    both = tree(tmp_path, [v1("pids", "pids"), unified()], "", {"cgroup.procs": "", "pids/cgroup.procs": ""})
    assert cgroups.layout(both).hybrid
    named = tree(tmp_path, [v1("pids", "name=systemd"), unified()], "", {})
    assert not cgroups.layout(named).hybrid


@pytest.mark.parametrize(
    ("shown", "group", "place"),
    [
        ("/", "/docker/abc", "/sys/fs/cgroup/memory/docker/abc"),
        ("/docker/abc", "/docker/abc", "/sys/fs/cgroup/memory"),
        ("/docker/abc", "/docker/abc/inner", "/sys/fs/cgroup/memory/inner"),
        ("/docker/abc", "/docker/abcd", None),
        ("/", "/../other", None),
        ("/..", "/", None),
    ],
)
def test_a_group_is_found_where_the_mount_shows_only_a_subtree(shown: str, group: str, place: str | None) -> None:
    (mount,) = cgroups.parse_mounts(v1("memory", "memory", root=shown))
    assert mount.path(group) == place


def test_a_mount_of_the_whole_hierarchy_wins_over_one_of_a_subtree_and_a_covered_one_does_not_count(
    tmp_path: Path,
) -> None:
    mounts = [v1("covered", "pids"), v1("part", "pids", root="/docker/a"), v1("whole", "pids"), v1("late", "pids")]
    root = tree(tmp_path, mounts, "", {f"{name}/cgroup.procs": "" for name in ("part", "whole", "late")})
    assert cgroups.layout(root).v1 == {"pids": "/sys/fs/cgroup/whole"}


def test_v1_memory_limits_above_a_visible_root_are_read_from_memory_stat(tmp_path: Path) -> None:
    files = {
        "memory/cgroup.procs": "42\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.stat": "cache 0\nhierarchical_memory_limit 67108864\n",
    }
    root = tree(tmp_path, [v1("memory", "memory", root="/docker/abc")], "4:memory:/docker/abc\n", files)

    limit = cgroups.limits_of(42, root=root).limits["memory"]

    assert (limit.value, limit.source) == (64 << 20, "/sys/fs/cgroup/memory/memory.stat hierarchical_memory_limit")


def test_what_is_not_visible_is_unknown_and_never_unlimited(tmp_path: Path) -> None:
    root = tree(tmp_path, [v1("pids", "pids")], "8:pids:/../elsewhere\n", {"pids/cgroup.procs": ""})

    found = cgroups.limits_of(42, root=root)

    assert found.get("pids") is None
    assert "not visible" in found.unknown["pids"]


def test_a_read_only_mount_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path, [unified(options="ro,nosuid")], "", {"cgroup.procs": ""})
    (only,) = cgroups.layout(root).hierarchies
    assert only.read_only


@pytest.mark.parametrize(
    ("text", "numbers"), [("", set()), ("0\n", {0}), ("0-3,8\n", {0, 1, 2, 3, 8}), ("2,0-1", {0, 1, 2})]
)
def test_lists_of_cpus_are_read_as_the_kernel_writes_them(text: str, numbers: set[int]) -> None:
    assert cgroups.parse_list(text) == numbers


def test_without_delegation_the_refusal_says_how_to_get_it(tmp_path: Path) -> None:
    own = tmp_path / "session.scope"
    own.mkdir()
    (own / "cgroup.procs").write_text("")
    (tmp_path / "cgroup.procs").write_text("")
    for name in (own, tmp_path):
        (name / "cgroup.controllers").write_text("cpu")
        (name / "cgroup.subtree_control").write_text("cpu")
    where = cgroups.Hierarchy(2, ("cpu",), str(tmp_path), "/")

    with pytest.raises(cgroup_place.Refused) as refused:
        cgroup_place.base(where, "stockade/x", {"": "/session.scope"}, frozenset({"memory"}))

    assert "doesn't offer memory" in refused.value.reason
    assert "Delegate=yes" in refused.value.hint


def test_a_supervisor_that_stepped_aside_puts_the_next_container_beside_itself(tmp_path: Path) -> None:
    leaf = tmp_path / "user.scope" / cgroup_place.SUPERVISOR
    leaf.mkdir(parents=True)
    for name in (leaf, leaf.parent):
        (name / "cgroup.procs").write_text("")
        (name / "cgroup.controllers").write_text("memory")
    (leaf.parent / "cgroup.subtree_control").write_text("memory")
    where = cgroups.Hierarchy(2, ("memory",), str(tmp_path), "/")
    groups = {"": f"/user.scope/{cgroup_place.SUPERVISOR}"}

    fd, directory = cgroup_place.base(where, "stockade/x", groups, frozenset({"memory"}))

    os.close(fd)
    assert directory == str(leaf.parent)


def test_a_group_beside_our_own_is_not_taken_where_it_would_escape_our_limits(tmp_path: Path) -> None:
    own = tmp_path / "limited.scope"
    own.mkdir()
    for name in (own, tmp_path):
        (name / "cgroup.procs").write_text("1\n")
        (name / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.controllers").write_text("memory")
    (own / "cgroup.controllers").write_text("")
    where = cgroups.Hierarchy(2, ("memory",), str(tmp_path), "/")
    groups = {"": "/limited.scope"}

    (own / "memory.max").write_text("max\n")
    fd, directory = cgroup_place.base(where, "stockade/x", groups, frozenset({"memory"}))
    os.close(fd)
    assert directory == str(tmp_path)

    (own / "memory.max").write_text("1048576\n")
    with pytest.raises(cgroup_place.Refused, match=r"would escape its memory\.max"):
        cgroup_place.base(where, "stockade/x", groups, frozenset({"memory"}))
