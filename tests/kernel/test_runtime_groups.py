"""pause, resume, update and events of the runtime, on containers that run."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stockade.sandbox.linux import cgroups
from tests.kernel import bundles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.bundles import Runtime

pytestmark = pytest.mark.kernel
ID = "box"
MIB = 1 << 20
LAYOUT = cgroups.layout()
V1 = bool(LAYOUT.v1.get("memory"))


@pytest.fixture
def top() -> Iterator[str]:
    """A parent for the container's groups, removed in the end, which fails if something is left in it."""
    name = f"stockade-test-{uuid.uuid4().hex[:12]}"
    yield name
    for hierarchy in LAYOUT.hierarchies:
        if (parent := Path(hierarchy.directory, name)).is_dir():
            parent.rmdir()


@pytest.fixture
def runtime(tmp_path: Path, top: str) -> Iterator[Runtime]:  # noqa: ARG001 - outlives the containers
    found = bundles.Runtime(tmp_path / "state")
    yield found
    found.ok("delete", "--force", ID)


@pytest.fixture
def bundle(tmp_path: Path, rootfs: Path, top: str) -> Path:
    limits = {"pids": {"limit": 50}, "memory": {"limit": 64 * MIB, "swap": 64 * MIB}}
    return bundles.write(tmp_path / "bundle", rootfs, cgroupsPath=f"/{top}/{ID}", resources=limits)


def value(top: str, v1: str, v2: str) -> str:
    file = v1 if V1 else v2
    hierarchy = LAYOUT.controller(file.partition(".")[0])
    assert hierarchy is not None
    return Path(hierarchy.directory, top, ID, file).read_text().strip()


def test_a_container_is_paused_and_resumed_and_says_so(runtime: Runtime, bundle: Path) -> None:
    runtime.ok("create", "--bundle", bundle, ID)
    runtime.ok("start", ID)

    runtime.ok("pause", ID)
    assert runtime.status(ID) == "paused"
    assert "container not running" in runtime("pause", ID).stderr
    runtime.ok("resume", ID)
    assert runtime.status(ID) == "running"
    assert "container not paused" in runtime("resume", ID).stderr


def test_a_container_that_waits_for_start_is_paused_and_started_only_after_resume(
    runtime: Runtime, bundle: Path
) -> None:
    runtime.ok("create", "--bundle", bundle, ID)
    runtime.ok("pause", ID)

    assert runtime.status(ID) == "paused"
    assert "paused" in runtime("start", ID).stderr
    runtime.ok("resume", ID)
    assert runtime.status(ID) == "created"
    runtime.ok("start", ID)


def test_a_container_that_has_stopped_is_neither_paused_nor_updated_nor_watched(
    runtime: Runtime, tmp_path: Path, rootfs: Path, top: str
) -> None:
    bundle = bundles.write(tmp_path / "short", rootfs, args=("/bin/true",), cgroupsPath=f"/{top}/{ID}")
    runtime.ok("run", "--detach", "--bundle", bundle, ID)
    while runtime.status(ID) != "stopped":
        pass

    assert "container not running" in runtime("pause", ID).stderr
    assert "container not running" in runtime("update", "--pids-limit", "9", ID).stderr
    assert f"container with id {ID} is not running" in runtime("events", "--stats", ID).stderr


@pytest.mark.parametrize("command", ["pause", "resume", "update", "events"])
def test_a_container_that_isnt_there_is_told_of_as_runc_does(tmp_path: Path, command: str) -> None:
    done = bundles.Runtime(tmp_path)(command, "absent")
    assert done.returncode == 1
    assert 'container "absent" does not exist' in done.stderr


def test_options_change_limits_and_leave_the_others(runtime: Runtime, bundle: Path, top: str) -> None:
    runtime.ok("create", "--bundle", bundle, ID)

    runtime.ok("update", "--memory", "32m", "--memory-swap", "48m", "--cpu-quota", "30000", "--cpu-share", "2048", ID)
    assert value(top, "memory.limit_in_bytes", "memory.max") == str(32 * MIB)
    assert value(top, "memory.memsw.limit_in_bytes", "memory.swap.max") == str((48 if V1 else 16) * MIB)
    assert value(top, "cpu.cfs_quota_us", "cpu.max").split()[0] == "30000"
    assert value(top, "cpu.shares", "cpu.weight") == ("2048" if V1 else "174")
    assert value(top, "pids.max", "pids.max") == "50"
    runtime.ok("update", "--pids-limit=-1", ID)
    assert value(top, "pids.max", "pids.max") == "max"


@pytest.mark.parametrize("source", ["file", "standard input"])
def test_resources_as_json_change_what_is_not_zero(
    runtime: Runtime, bundle: Path, top: str, tmp_path: Path, source: str
) -> None:
    runtime.ok("create", "--bundle", bundle, ID)
    zeros = {"limit": 0, "swap": 0, "reservation": 0, "kernel": 0, "kernelTCP": 0}
    cpu = {"shares": 0, "quota": 20000, "period": 100000, "cpus": "", "realtimePeriod": 0, "realtimeRuntime": 0}
    text = json.dumps({"memory": zeros, "cpu": cpu, "pids": {"limit": 44}, "blockIO": {"weight": 0}})
    file = tmp_path / "resources.json"
    file.write_text(text)

    if source == "file":
        runtime.ok("update", f"--resources={file}", ID)
    else:
        runtime.ok("update", "--resources", "-", ID, text=text)
    assert value(top, "pids.max", "pids.max") == "44"
    assert value(top, "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert value(top, "cpu.cfs_quota_us", "cpu.max").split()[0] == "20000"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--memory", "lots"), "invalid value for memory"),
        (("--cpu-share=-2",), "invalid value for cpu-share"),
        (("--cpu-share", "1"), "cpu-shares is 1"),
        (("--blkio-weight", "5"), "--blkio-weight 5"),
        (("--l3-cache-schema", "x"), "Intel RDT is not supported"),
        (("--resources", "/absent"), "--resources /absent: No such file"),
        (("--cpuset-cpus", "4000"), "cpuset-cpus can't be enforced"),
    ],
)
def test_a_change_that_cant_be_had_is_one_clear_line(
    runtime: Runtime, bundle: Path, options: tuple[str, ...], message: str
) -> None:
    runtime.ok("create", "--bundle", bundle, ID)

    done = runtime("update", *options, ID)
    assert done.returncode == 1
    assert message in done.stderr.split("\n")[0]


def test_statistics_are_one_line_of_json(runtime: Runtime, bundle: Path) -> None:
    runtime.ok("create", "--bundle", bundle, ID)
    (line,) = runtime.ok("events", "--stats", ID).splitlines()

    event = json.loads(line)
    assert (event["type"], event["id"]) == ("stats", ID)
    assert event["data"]["pids"] == {"current": 1, "limit": 50}
    assert event["data"]["memory"]["usage"]["limit"] == 64 * MIB


def test_events_tell_of_an_oom_kill_and_end_with_the_container(
    runtime: Runtime, tmp_path: Path, rootfs: Path, top: str
) -> None:
    limits = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    hog = "read go </dev/null; dd if=/dev/zero of=/dev/null bs=64M count=1"
    bundle = bundles.write(
        tmp_path / "hog", rootfs, args=("/bin/sh", "-c", hog), cgroupsPath=f"/{top}/{ID}", resources=limits
    )
    bundle.joinpath("config.json").write_text(
        bundle.joinpath("config.json").read_text().replace('"mounts": [', '"mounts": [' + _DEV)
    )
    runtime.ok("create", "--bundle", bundle, ID)
    with subprocess.Popen(
        [*runtime.command, "events", "--interval", "200ms", ID], stdout=subprocess.PIPE, text=True
    ) as events:
        assert events.stdout
        assert json.loads(events.stdout.readline())["type"] == "stats"  # it watches
        runtime.ok("start", ID)
        kinds = [json.loads(line)["type"] for line in events.stdout]
        assert events.wait(10) == 0
    assert "oom" in kinds


_DEV = json.dumps({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}) + ","
