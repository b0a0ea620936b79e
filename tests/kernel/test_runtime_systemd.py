"""The systemd driver with a real systemd: a user manager of root's own, in a mount namespace where systemd "is booted".

The manager takes a group of its own in the hierarchies that systemd uses and starts scopes below it, as the system's
does; the runtime is led to its bus by DBUS_SYSTEM_BUS_ADDRESS.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from stockade.sandbox import cgroup_handle
from stockade.sandbox.linux import cgroups
from tests.kernel import bundles

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel
MIB = 1 << 20
LAYOUT = cgroups.layout()
V1 = bool(LAYOUT.v1.get("memory"))
START = """
set -e
for directory in $GROUPS_OF_ITS_OWN; do echo $$ >$directory/cgroup.procs; done
mount -t tmpfs run /run
mkdir -p /run/systemd/system
exec systemd --user --log-target=console --unit=basic.target
"""
LIMITS = {
    "devices": [{"allow": False, "access": "rwm"}],
    "memory": {"limit": 64 * MIB, "swap": 64 * MIB},
    "cpu": {"shares": 2048, "quota": 50000, "period": 100000},
    "pids": {"limit": 50},
}


class Manager(NamedTuple):
    """A systemd that runs: its group's name, and its runtime directory."""

    group: str
    directory: Path

    def show(self, unit: str) -> dict[str, str]:
        """Give the properties of a unit."""
        done = subprocess.run(
            ["systemctl", "--user", "show", unit], capture_output=True, text=True, check=True, timeout=20,
            env=os.environ | {"XDG_RUNTIME_DIR": str(self.directory)},
        )  # fmt: skip
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def reload(self) -> None:
        """Make systemd write what it knows of each unit again."""
        environment = os.environ | {"XDG_RUNTIME_DIR": str(self.directory)}
        subprocess.run(["systemctl", "--user", "daemon-reload"], check=True, timeout=20, env=environment)


@pytest.fixture(scope="module")
def manager() -> Iterator[Manager]:
    """Start a systemd with a bus; its groups, and all that was made below them, are removed in the end."""
    name = f"stockade-test-{uuid.uuid4().hex[:12]}"
    own = [h for h in LAYOUT.hierarchies if h.version == 2 or "name=systemd" in h.controllers]
    directory = Path(tempfile.mkdtemp(prefix="stockade-systemd-"))  # short: a socket's path has 107 bytes
    places = [f"{hierarchy.directory}/{name}" for hierarchy in own]
    for place in places:
        os.mkdir(place)
    environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(directory), "GROUPS_OF_ITS_OWN": " ".join(places)}
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", START], env=environment, stdin=subprocess.DEVNULL
    ) as child:
        try:
            _wait_for(directory / "bus", child)
            yield Manager(name, directory)
        finally:
            child.terminate()
            child.wait(30)
            for hierarchy in LAYOUT.hierarchies:
                _remove(f"{hierarchy.directory}/{name}")
            shutil.rmtree(directory)


def _wait_for(path: Path, child: subprocess.Popen[bytes]) -> None:
    ended = select.poll()
    ended.register(os.pidfd_open(child.pid), select.POLLIN)
    deadline = time.monotonic() + 30
    while not path.exists():
        assert not ended.poll(20), "systemd ended: are systemd, dbus-daemon and dbus-user-session installed?"
        assert time.monotonic() < deadline


def _remove(top: str) -> None:
    if os.path.isdir(top):
        assert cgroup_handle.reopen([f"any:{top}"]).destroy()


@pytest.fixture
def runtime(manager: Manager, tmp_path: Path) -> Iterator[bundles.Runtime]:
    bus = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={manager.directory}/bus"}
    found = bundles.Runtime(tmp_path / "state", "--systemd-cgroup", env=bus)
    yield found
    found.ok("delete", "--force", "box")


def value(manager: Manager, v1: str, v2: str) -> str:
    file = v1 if V1 else v2
    hierarchy = LAYOUT.controller(file.partition(".")[0])
    assert hierarchy is not None
    return Path(hierarchy.directory, manager.group, "test.slice/libpod-box.scope", file).read_text().strip()


@pytest.fixture
def bundle(tmp_path: Path, rootfs: Path) -> Path:
    unified = {} if V1 else {"unified": {"memory.high": "48M"}}
    return bundles.write(
        tmp_path / "bundle",
        rootfs,
        cgroupsPath="test.slice:libpod:box",
        resources=LIMITS | unified,
        annotations={"org.systemd.property.TimeoutStopUSec": "uint64 7000000"},
    )


def test_a_container_is_in_a_scope_with_its_limits_and_the_scope_goes_with_it(
    manager: Manager, runtime: bundles.Runtime, bundle: Path
) -> None:
    runtime.ok("create", "--bundle", bundle, "box")
    pid = json.loads(runtime.ok("state", "box"))["pid"]

    found = manager.show("libpod-box.scope")
    assert found["ActiveState"] == "active"
    assert found["Slice"] == "test.slice"
    assert found["Delegate"] == "yes"
    assert found["TimeoutStopUSec"] == "7s"
    assert found["TasksMax"] == "50"
    assert found["CPUQuotaPerSecUSec"] == "500ms"
    assert found["MemoryLimit" if V1 else "MemoryMax"] == str(64 * MIB)
    assert found["CPUShares" if V1 else "CPUWeight"] == ("2048" if V1 else "174")
    assert found["DevicePolicy"] == "strict"
    groups = cgroups.membership(pid)
    assert set(groups.values()) == {f"/{manager.group}/test.slice/libpod-box.scope"}
    runtime.ok("start", "box")
    runtime.ok("delete", "--force", "box")
    assert manager.show("libpod-box.scope")["LoadState"] == "not-found"
    assert not [h for h in LAYOUT.hierarchies if list(Path(h.directory, manager.group).glob("test.slice/libpod*"))]
    runtime.ok("create", "--bundle", bundle, "box")  # the name is free again


def test_limits_stay_when_systemd_reloads(manager: Manager, runtime: bundles.Runtime, bundle: Path) -> None:
    runtime.ok("create", "--bundle", bundle, "box")

    def limits() -> list[str]:
        return [
            value(manager, "memory.limit_in_bytes", "memory.max"),
            value(manager, "memory.memsw.limit_in_bytes", "memory.high"),
            value(manager, "cpu.cfs_quota_us", "cpu.max"),
            value(manager, "cpu.shares", "cpu.weight"),
            value(manager, "pids.max", "pids.max"),
        ]

    before = limits()
    manager.reload()
    assert limits() == before
    runtime.ok("update", "--memory", "32m", "--memory-swap", "32m", "--pids-limit", "40", "--cpu-quota", "20000", "box")
    before = limits()
    assert before[0] == str(32 * MIB)
    assert before[2].split()[0] == "20000"
    assert before[4] == "40"
    assert manager.show("libpod-box.scope")["TasksMax"] == "40"
    manager.reload()
    assert limits() == before


def test_pause_and_resume_work_in_a_scope(runtime: bundles.Runtime, bundle: Path) -> None:
    runtime.ok("create", "--bundle", bundle, "box")
    runtime.ok("start", "box")
    runtime.ok("pause", "box")
    assert runtime.status("box") == "paused"
    runtime.ok("resume", "box")
    assert runtime.status("box") == "running"


def test_a_failed_create_leaves_no_unit(
    manager: Manager, runtime: bundles.Runtime, tmp_path: Path, rootfs: Path
) -> None:
    bad = bundles.write(
        tmp_path / "bad",
        rootfs,
        cgroupsPath="test.slice:libpod:box",
        resources=LIMITS | {"network": {"classID": 5}},
    )
    done = runtime("create", "--bundle", bad, "box")
    assert done.returncode == 1
    assert done.stderr.startswith("stockade-runtime: network-class can't be enforced: ")
    assert manager.show("libpod-box.scope")["LoadState"] == "not-found"


def test_a_name_that_is_taken_is_refused(runtime: bundles.Runtime, bundle: Path) -> None:
    runtime.ok("create", "--bundle", bundle, "box")
    done = runtime("create", "--bundle", bundle, "other")
    assert done.returncode == 1
    assert "systemd refuses starting libpod-box.scope: " in done.stderr


@pytest.mark.parametrize("address", ["unix:path=/nonexistent/bus", "tcp:host=localhost"])
def test_without_a_bus_there_is_one_clear_error(tmp_path: Path, bundle: Path, address: str) -> None:
    runtime = bundles.Runtime(
        tmp_path / "state", "--systemd-cgroup", env=os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": address}
    )
    done = runtime("create", "--bundle", bundle, "box")
    assert done.returncode == 1
    assert done.stderr.startswith("stockade-runtime: the systemd cgroup driver needs the system's D-Bus, and ")
    assert "No such file or directory" in done.stderr
    assert not Path(tmp_path, "state", "box").exists()
