"""The systemd driver: a scope for each container, in the slice that was asked for, with its limits as properties."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.guest import boxes
from tests.guest.boxes import CGROUPS, MIB, RUNTIME, Box, as_user, call, properties, said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., Box]

RESOURCES = {
    "memory": {"limit": 64 * MIB, "swap": 64 * MIB, "reservation": 16 * MIB},
    "pids": {"limit": 40},
    "cpu": {"quota": 50000, "period": 100000, "shares": 2048},
}


def test_a_scope_holds_the_container_with_its_limits_as_properties(make: Make) -> None:
    box = make(None, RESOURCES, systemd=True)
    unit = f"stockade-{box.id}.scope"

    names = ("ActiveState", "Slice", "MemoryMax", "MemorySwapMax", "MemoryLow", "TasksMax", "CPUQuotaPerSecUSec")
    assert properties(unit, *names, "Delegate") == {
        "ActiveState": "active",
        "Slice": "system.slice",
        "MemoryMax": str(64 * MIB),
        "MemorySwapMax": "0",
        "MemoryLow": str(16 * MIB),
        "TasksMax": "40",
        "CPUQuotaPerSecUSec": "500ms",
        "Delegate": "yes",
    }
    assert box.group == CGROUPS / "system.slice" / unit
    assert (box.read("memory.max"), box.read("pids.max"), box.read("cpu.max")) == (
        str(64 * MIB),
        "40",
        "50000 100000",
    )
    assert box.read("cpu.weight") == properties(unit, "CPUWeight")["CPUWeight"]
    assert box.read("cgroup.procs").split() == [str(box.pid)]


def test_limits_survive_a_reload_of_systemd(make: Make) -> None:
    box = make(None, RESOURCES, systemd=True)

    box.said("update", "--memory", "96m", "--pids-limit", "55", "--cpu-quota", "25000", box.id)
    said("systemctl", "daemon-reload")

    found = properties(f"stockade-{box.id}.scope", "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec")
    assert found == {"MemoryMax": str(96 * MIB), "TasksMax": "55", "CPUQuotaPerSecUSec": "250ms"}
    assert (box.read("memory.max"), box.read("pids.max"), box.read("cpu.max")) == (
        str(96 * MIB),
        "55",
        "25000 100000",
    )
    assert "kmsg" not in box.shown("mknod /tmp/k c 1 11; (: < /tmp/k) 2>/dev/null && echo kmsg; true")


def test_a_slice_is_made_where_the_path_names_one(make: Make) -> None:
    name = f"x{os.getpid()}"
    box = make(path=f"guest-inner.slice:engine:{name}", systemd=True)

    assert box.group == CGROUPS / f"guest.slice/guest-inner.slice/engine-{name}.scope"
    assert properties(f"engine-{name}.scope", "Slice") == {"Slice": "guest-inner.slice"}


def test_without_a_path_the_scope_is_in_the_systems_slice(make: Make) -> None:
    box = make(path="", systemd=True)

    assert box.group == CGROUPS / f"system.slice/stockade-{box.id}.scope"


def test_delete_leaves_no_unit(make: Make, ended: Callable[[Box], None]) -> None:
    box = make(systemd=True)
    unit = f"stockade-{box.id}.scope"
    box.said("kill", box.id, "KILL")
    ended(box)

    box.said("delete", box.id)

    assert properties(unit, "LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
    assert not box.group.exists()


def test_a_failed_create_leaves_no_unit(tmp_path: Path) -> None:
    box = Box(tmp_path, "--systemd-cgroup")
    box.write_bundle(["/bin/absent"], {}, f"system.slice:stockade:{box.id}")

    done = box.runtime("run", "--bundle", str(box.bundle), box.id)

    assert done.returncode != 0
    assert "no such file or directory" in done.stderr.lower()
    assert properties(f"stockade-{box.id}.scope", "LoadState") == {"LoadState": "not-found"}


def test_a_path_of_the_other_driver_is_refused(tmp_path: Path) -> None:
    box = Box(tmp_path, "--systemd-cgroup")
    box.write_bundle(boxes.WAITS, {}, f"/guest/{box.id}")

    done = box.runtime("create", "--bundle", str(box.bundle), box.id)

    assert done.returncode == 1
    assert "slice:prefix:name" in done.stderr


def test_pause_resume_and_devices_work_in_a_scope(make: Make) -> None:
    box = make(systemd=True)

    box.said("pause", box.id)
    assert box.status() == "paused"
    box.said("resume", box.id)
    assert "Operation not permitted" in box.exec("mknod /tmp/k c 1 11; : < /tmp/k").stderr


def test_annotations_set_properties_of_the_unit(tmp_path: Path) -> None:
    box = Box(tmp_path, "--systemd-cgroup")
    box.write_bundle(boxes.WAITS, {}, f"system.slice:stockade:{box.id}")
    file = box.bundle / "config.json"
    document = json.loads(file.read_text())
    document["annotations"] = {
        "org.systemd.property.TimeoutStopUSec": "uint64 123000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    }
    file.write_text(json.dumps(document))
    box.create()
    try:
        found = properties(f"stockade-{box.id}.scope", "TimeoutStopUSec", "CollectMode")
        assert found == {"TimeoutStopUSec": "2min 3s", "CollectMode": "inactive-or-failed"}
    finally:
        box.delete()


def test_a_user_has_scopes_of_his_own_systemd(tmp_path: Path) -> None:
    """Rootless, as `stockade-runtime --systemd-cgroup run` in a session: the user's own manager makes the scope."""
    identity = f"user{os.getpid()}"
    bundle = tmp_path / "bundle"
    for directory in (tmp_path, *tmp_path.parents):
        if directory != directory.parent:
            directory.chmod(0o755)
    bundle.mkdir()
    maps = [{"containerID": 0, "hostID": 1000, "size": 1}]
    namespaces = [{"type": kind} for kind in (*boxes.KINDS, "user")]
    document = boxes.configuration(
        boxes.WAITS, {"memory": {"limit": 64 * MIB}, "pids": {"limit": 33}}, f"user.slice:stockade:{identity}",
        linux={"uidMappings": maps, "gidMappings": maps, "namespaces": namespaces,
               "resources": {"memory": {"limit": 64 * MIB}, "pids": {"limit": 33}}},
        mounts=[{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}],
    )  # fmt: skip
    (bundle / "config.json").write_text(json.dumps(document))
    command = (*RUNTIME, "--systemd-cgroup")
    try:
        said(*as_user(*command, "run", "--detach", "--bundle", str(bundle), identity))
        state = json.loads(said(*as_user(*command, "state", identity)))
        group = boxes.group_of(state["pid"])
        assert group.name == f"stockade-{identity}.scope"
        assert "user@1000.service" in str(group)
        assert (group / "memory.max").read_text().strip() == str(64 * MIB)
        assert (group / "pids.max").read_text().strip() == "33"
        found = properties(f"stockade-{identity}.scope", "MemoryMax", "TasksMax", user=True)
        assert found == {"MemoryMax": str(64 * MIB), "TasksMax": "33"}
        said(*as_user(*command, "update", "--memory", "48m", identity))
        assert (group / "memory.max").read_text().strip() == str(48 * MIB)
        said(*as_user(*command, "pause", identity))
        assert "frozen 1" in (group / "cgroup.events").read_text()
        said(*as_user(*command, "resume", identity))
        assert said(*as_user(*command, "exec", identity, "id", "-u")) == "0"
    finally:
        call(*as_user(*command, "delete", "--force", identity))
    assert not group.exists()
