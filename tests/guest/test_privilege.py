"""What a machine with every capability and an LSM allows: profiles, limits above the hard ones, all 41 capabilities."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.linux import capabilities
from tests.guest.boxes import RUNTIME, call, said

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.guest.boxes import Box

    Make = Callable[..., Box]

PROFILE = """#include <tunables/global>
profile stockade-guest flags=(attach_disconnected,mediate_deleted) {
  #include <abstractions/base>
  network, capability, file, umount,
  signal, ptrace (trace,read,tracedby,readby) peer=stockade-guest,
  deny /tmp/secret rw,
}
"""
LAST = int(Path("/proc/sys/kernel/cap_last_cap").read_text())


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("apparmor") / "profile"
    file.write_text(PROFILE)
    said("apparmor_parser", "--replace", "--skip-cache", str(file))
    return "stockade-guest"


def test_a_profile_is_in_force_for_the_first_program_and_for_exec(
    make: Make, profile: str, ended: Callable[[Box], None]
) -> None:
    script = "cat /proc/self/attr/current; echo x > /tmp/secret; echo x > /tmp/other && echo written; sleep 1000"
    box = make(["sh", "-c", script], process={"apparmorProfile": profile})

    assert box.shown("cat /proc/1/attr/current /proc/self/attr/current").splitlines() == [f"{profile} (enforce)"] * 2
    assert "Permission denied" in box.exec("cat /tmp/secret; echo y > /tmp/secret").stderr
    box.said("kill", box.id, "KILL")
    ended(box)
    lines = box.output().splitlines()
    assert lines[0] == f"{profile} (enforce)"
    assert "Permission denied" in lines[1]
    assert lines[2] == "written"


def test_exec_takes_a_profile_of_its_own(make: Make, profile: str) -> None:
    box = make()

    found = box.said("exec", "--apparmor", profile, box.id, "cat", "/proc/self/attr/current")

    assert found == f"{profile} (enforce)"
    done = box.runtime("exec", "--apparmor", "not-loaded", box.id, "true")
    assert done.returncode == 255
    assert "no such profile is loaded" in done.stderr


def test_a_profile_that_is_not_loaded_fails_create_with_a_line_and_a_remedy(refused: Callable[..., str]) -> None:
    text = refused(process={"apparmorProfile": "not-loaded"})

    assert "not-loaded" in text
    assert "no such profile is loaded" in text
    assert len(text.splitlines()) <= 2


def test_root_raises_limits_above_the_hard_ones(make: Make) -> None:
    rlimits = [
        {"type": "RLIMIT_NOFILE", "soft": 50000, "hard": 60000},
        {"type": "RLIMIT_MEMLOCK", "soft": 1 << 40, "hard": 1 << 40},
    ]
    box = make(process={"rlimits": rlimits})

    assert os.sysconf("SC_OPEN_MAX") < 60000
    assert box.shown("ulimit -Sn; ulimit -Hn") == "50000\n60000"


def test_root_lowers_the_oom_score(make: Make) -> None:
    box = make(process={"oomScoreAdj": -999})

    assert box.shown("cat /proc/1/oom_score_adj") == "-999"


def test_privileged_has_every_capability(make: Make) -> None:
    names = list(capabilities.NAMES)
    sets = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), names)
    process: dict[str, Any] = {"capabilities": sets, "noNewPrivileges": False}
    box = make(None, {"devices": [{"allow": True, "access": "rwm"}]}, process=process)

    assert len(names) == LAST + 1 == 41
    found = box.shown("grep ^Cap /proc/1/status").split()[1::2]
    assert found == [f"{(1 << 41) - 1:016x}"] * 5
    assert box.shown("mknod /tmp/kmsg c 1 11; : < /tmp/kmsg && echo opened") == "opened"


def test_a_time_namespace_shifts_the_clock_or_is_refused(make: Make, refused: Callable[..., str]) -> None:
    offsets = {"boottime": {"secs": 1000000, "nanosecs": 0}}
    if os.path.exists("/proc/self/ns/time"):
        box = make(namespaces=["time"], linux={"timeOffsets": offsets})
        assert float(box.shown("cut -d' ' -f1 /proc/uptime")) > 1000000
    else:
        text = refused(namespaces=["time"], linux={"timeOffsets": offsets})
        assert "time" in text
        assert len(text.splitlines()) <= 2


def test_the_features_document_says_what_this_kernel_has() -> None:
    document = json.loads(said(*RUNTIME, "features"))

    assert document["linux"]["cgroup"] == {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True}
    assert document["linux"]["apparmor"] == {"enabled": True}
    assert call(*RUNTIME, "--version").returncode == 0
