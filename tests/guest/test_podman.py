"""Podman with the systemd cgroup manager on cgroup v2, as root and rootless: what needs both, which most hosts have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guest.boxes import CGROUPS, MIB, properties
from tests.guest.engine import IMAGE, Podman, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS = ("--memory", "64m", "--memory-swap", "64m", "--pids-limit", "33", "--cpus", "0.5")


def text(group: Path, file: str) -> str:
    return (group / file).read_text().strip()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def _engines(archive: Path) -> dict[str, Podman]:
    return {"root": Podman(archive, user=False), "rootless": Podman(archive, user=True)}


@pytest.fixture(params=["root", "rootless"])
def podman(request: pytest.FixtureRequest, _engines: dict[str, Podman]) -> Iterator[Podman]:
    yield _engines[request.param]
    _engines[request.param].clean()


@pytest.fixture
def root(_engines: dict[str, Podman]) -> Iterator[Podman]:
    yield _engines["root"]
    _engines["root"].clean()


@pytest.fixture
def rootless(_engines: dict[str, Podman]) -> Iterator[Podman]:
    yield _engines["rootless"]
    _engines["rootless"].clean()


def test_limits_are_in_force_in_a_scope(podman: Podman) -> None:
    group = podman.background("limits", *LIMITS)
    identity = podman.inspect("limits")["Id"]
    unit = f"libpod-{identity}.scope"

    assert unit in group.parts
    assert text(group, "memory.max") == str(64 * MIB)
    assert text(group, "memory.swap.max") == "0"
    assert text(group, "pids.max") == "33"
    assert text(group, "cpu.max") == "50000 100000"
    found = properties(unit, "MemoryMax", "TasksMax", "Slice", user=podman.user)
    assert found["MemoryMax"] == str(64 * MIB)
    assert found["TasksMax"] == "33"
    assert found["Slice"] == ("user.slice" if podman.user else "machine.slice")


def test_a_container_is_paused_asked_changed_and_stopped(podman: Podman) -> None:
    group = podman.background("life", *LIMITS)

    podman.said("pause", "life")
    assert "frozen 1" in text(group, "cgroup.events").splitlines()
    podman.said("unpause", "life")
    assert podman.said("exec", "life", "cat", "/proc/self/cgroup", "/proc/1/cgroup").splitlines()[-1] == "0::/"
    podman.said("update", "--memory", "48m", "--memory-swap", "48m", "--cpus", "0.25", "life")
    assert text(group, "memory.max") == str(48 * MIB)
    assert text(group, "cpu.max") == "25000 100000"
    assert len(podman.said("top", "life", "pid").splitlines()) == 2
    assert "64MB" not in podman.said("stats", "--no-stream", "--format", "{{.MemUsage}}", "life")
    podman.said("stop", "--time", "1", "life")
    assert podman.inspect("life")["State"]["Status"] == "exited"
    podman.said("rm", "life")
    assert not group.exists()


def test_running_out_of_memory_ends_it(podman: Podman) -> None:
    fill = ("dd", "if=/dev/zero", "of=/dev/shm/file", "bs=1M", "count=100")

    done = podman(
        *("run", "--name", "oom", "--network", "none", "--memory", "32m", "--memory-swap", "32m"),
        *("--shm-size", "200m", IMAGE, *fill),
    )  # fmt: skip

    # State.OOMKilled stays false here with crun and runc too: systemd has removed the group when conmon looks
    assert done.returncode == 137


def test_output_and_exit_code_come_through(podman: Podman) -> None:
    done = podman("run", "--rm", "--network", "none", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_exec_gives_its_exit_code_and_joins_the_group(podman: Podman) -> None:
    group = podman.background("joined")
    podman.said("exec", "--detach", "joined", "sleep", "999")

    assert len((group / "cgroup.procs").read_text().split()) == 2
    assert podman("exec", "joined", "sh", "-c", "exit 9").returncode == 9


def test_a_container_for_systemd_may_make_groups(podman: Podman) -> None:
    found = podman.sh(
        "mkdir /sys/fs/cgroup/inner && echo $$ > /sys/fs/cgroup/inner/cgroup.procs && cat /proc/self/cgroup",
        "--systemd=always",
    )

    assert found == "0::/inner"


def test_others_may_not(podman: Podman) -> None:
    assert podman.sh("mkdir /sys/fs/cgroup/inner 2>/dev/null || echo refused") == "refused"


def test_a_container_of_a_pod_is_in_its_slice(root: Podman) -> None:
    group = root.background("inpod", "--pod", "new:pod")

    assert any(part.startswith("machine-libpod_pod_") for part in group.parts)


def test_cgroups_can_be_split_off_from_a_service(rootless: Podman) -> None:
    """`--cgroups=split`, as Quadlet's units have it: the group is below that of the service that runs podman."""
    found = rootless.sh("cat /proc/self/cgroup", "--cgroups", "split", "--cgroupns", "host")

    assert "app.slice/run-" in found


def test_limits_of_the_host_are_passed_on(podman: Podman) -> None:
    assert podman.sh("ulimit -n", "--ulimit", "nofile=777:888") == "777"


def test_keep_id_is_the_user_inside_and_outside(rootless: Podman) -> None:
    assert rootless.sh("id -u; id -g", "--userns", "keep-id").split() == ["1000", "1000"]


def test_devices_of_the_host_are_given_by_name_alone(root: Podman) -> None:
    assert root.sh("test -e /dev/kmsg || echo absent") == "absent"
    assert root.sh(": < /dev/kmsg && echo opened", "--device", "/dev/kmsg") == "opened"
    done = root.sh("mknod /tmp/k c 1 11 && (: < /tmp/k) || echo refused", "--cap-add", "MKNOD")
    assert done == "refused"


def test_podmans_own_apparmor_profile_is_in_force(root: Podman) -> None:
    found = root.sh("cat /proc/self/attr/current")

    assert found.startswith("containers-default-")
    assert found.endswith("(enforce)")
    assert root.sh("cat /proc/self/attr/current", "--security-opt", "apparmor=unconfined") == "unconfined"
    done = root("run", "--rm", "--network", "none", "--security-opt", "apparmor=absent", IMAGE, "true")
    assert done.returncode != 0
    assert "absent" in done.stderr


def test_a_user_goes_without_a_profile(rootless: Podman) -> None:
    assert rootless.sh("cat /proc/self/attr/current") == "unconfined"


def test_privileged_has_every_capability(root: Podman) -> None:
    assert root.sh("grep CapEff /proc/self/status", "--privileged").split()[1] == f"{(1 << 41) - 1:016x}"


def test_groups_made_by_cgroupfs_are_below_libpod_parent(root: Podman) -> None:
    root.said("--cgroup-manager", "cgroupfs", "run", "--detach", "--name", "plain", "--network", "none", *LIMITS,
              IMAGE, "sleep", "1000")  # fmt: skip
    group = root.group("plain")

    assert group.is_relative_to(CGROUPS / "libpod_parent")
    assert text(group, "pids.max") == "33"
    root.said("rm", "--force", "--time", "0", "plain")
    assert not group.exists()


def test_a_network_of_its_own_has_an_address(rootless: Podman) -> None:
    found = rootless.said("run", "--rm", "--network", "slirp4netns", IMAGE, "ip", "-o", "addr")

    assert "10.0.2.100/24" in found
