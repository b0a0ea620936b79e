"""Control groups version 2 alone, with the cgroupfs driver: what a configuration names is in force and changes."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from tests.guest.boxes import CGROUPS, MIB, Box

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., Box]

DENY = {"allow": False, "access": "rwm"}
OPEN = "for n in null zero kmsg; do (: < /dev/$n) 2>/dev/null && echo $n; done; true"
KMSG = {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666, "uid": 0, "gid": 0}
KMSG_RULE = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
FILL = ["dd", "if=/dev/zero", "of=/tmp/file", "bs=1M", "count=100"]  # into a tmpfs, which counts as memory
SMALL = {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}}
SPIN = ["sh", "-c", "while :; do :; done"]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "not within 30 seconds"
        time.sleep(0.05)


def test_the_machine_is_what_these_tests_are_for() -> None:
    assert (CGROUPS / "cgroup.controllers").exists()
    assert os.readlink("/proc/1/exe").endswith("/systemd")


def test_limits_are_in_the_files_of_cgroup2(make: Make) -> None:
    resources = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
        "pids": {"limit": 40},
        "cpu": {"quota": 50000, "period": 100000, "shares": 1024},
        "unified": {"memory.high": str(48 * MIB), "memory.oom.group": "1"},
    }
    box = make(None, resources)

    assert {file: box.read(file) for file in ("memory.max", "memory.low", "memory.high", "memory.oom.group")} == {
        "memory.max": str(64 * MIB),
        "memory.low": str(32 * MIB),
        "memory.high": str(48 * MIB),
        "memory.oom.group": "1",
    }
    assert box.read("memory.swap.max") == str(32 * MIB)
    assert box.read("pids.max") == "40"
    assert box.read("cpu.max") == "50000 100000"
    assert box.read("cpu.weight") == "100"


def test_no_more_processes_than_the_limit_start(make: Make) -> None:
    box = make(None, {"pids": {"limit": 12}})

    done = box.exec("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 60 > /dev/null 2>&1 & done")

    assert "can't fork" in done.stderr
    assert box.numbers("pids.events")["max"] >= 1


def test_a_program_is_throttled_to_its_quota(make: Make) -> None:
    box = make(SPIN, {"cpu": {"quota": 10000, "period": 100000}})

    until(lambda: box.numbers("cpu.stat")["nr_throttled"] > 2)


def test_running_out_of_memory_kills_and_is_told(make: Make, ended: Callable[[Box], None]) -> None:
    box = make(FILL, SMALL)
    ended(box)

    assert box.numbers("memory.events")["oom_kill"] >= 1
    assert box.status() == "stopped"


def test_run_gives_137_for_what_the_kernel_killed(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.write_bundle(FILL, dict(SMALL), f"/guest/{box.id}")

    done = box.runtime("run", "--bundle", str(box.bundle), box.id)

    assert done.returncode == 137, done
    assert not (CGROUPS / "guest" / box.id).exists()


def test_devices_that_no_rule_allows_are_refused_by_the_kernel(make: Make) -> None:
    linux = {"devices": [KMSG]}
    denied, allowed = make(linux=linux), make(None, {"devices": [DENY, KMSG_RULE]}, linux=linux)

    assert denied.shown(OPEN).split() == ["null", "zero"]
    assert allowed.shown(OPEN).split() == ["null", "zero", "kmsg"]
    for box in (denied, allowed):
        box.update({"memory": {"limit": 64 * MIB}})
        assert box.read("memory.max") == str(64 * MIB)
    assert denied.shown(OPEN).split() == ["null", "zero"]
    assert allowed.shown(OPEN).split() == ["null", "zero", "kmsg"]
    assert allowed.exec("echo x > /dev/kmsg").returncode != 0


def test_the_first_program_is_under_the_rules_too(make: Make, ended: Callable[[Box], None]) -> None:
    box = make(["sh", "-c", f"{OPEN}; mknod /tmp/sda b 8 0 && echo made; (: < /tmp/sda) || echo refused"])
    ended(box)

    assert box.output().splitlines()[:3] == ["null", "zero", "made"]
    assert box.output().splitlines()[-1] == "refused"
    assert "Operation not permitted" in box.output()


def test_pause_stops_every_process_and_resume_lets_them_go_on(make: Make) -> None:
    box = make(SPIN)
    until(lambda: box.numbers("cpu.stat")["usage_usec"] > 1000)

    box.said("pause", box.id)
    assert box.status() == "paused"
    assert box.numbers("cgroup.events")["frozen"] == 1
    used = box.numbers("cpu.stat")["usage_usec"]
    time.sleep(0.2)
    assert box.numbers("cpu.stat")["usage_usec"] == used
    assert "paused" in box.exec("true").stderr
    box.said("resume", box.id)
    assert box.status() == "running"
    until(lambda: box.numbers("cpu.stat")["usage_usec"] > used)


def test_update_changes_what_it_names(make: Make) -> None:
    box = make(None, {"memory": {"limit": 64 * MIB}, "pids": {"limit": 40}})

    box.said("update", "--memory", "128m", "--pids-limit", "77", "--cpu-quota", "20000", "--cpu-share", "2", box.id)
    assert box.read("memory.max") == str(128 * MIB)
    assert box.read("pids.max") == "77"
    assert box.read("cpu.max") == "20000 100000"
    assert box.read("cpu.weight") == "1"
    box.update({"unified": {"memory.high": str(60 * MIB)}, "pids": {"limit": -1}})
    assert box.read("memory.high") == str(60 * MIB)
    assert box.read("pids.max") == "max"
    assert box.read("memory.max") == str(128 * MIB)


def test_events_count_what_the_group_used(make: Make) -> None:
    box = make(None, {"memory": {"limit": 64 * MIB}, "pids": {"limit": 40}})

    document = json.loads(box.said("events", "--stats", box.id))

    assert document["type"] == "stats"
    assert document["id"] == box.id
    assert document["data"]["pids"] == {"current": 1, "limit": 40}
    assert document["data"]["memory"]["usage"]["limit"] == 64 * MIB
    assert 0 < document["data"]["memory"]["usage"]["usage"] < 64 * MIB
    assert document["data"]["cpu"]["usage"]["total"] > 0


def cgroup_mount(*options: str) -> dict[str, object]:
    return {
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", *options],
    }  # fmt: skip


def test_a_container_sees_its_own_group_alone_and_read_only(make: Make) -> None:
    box = make(mounts=[cgroup_mount("ro", "relatime")])

    assert box.shown("cat /proc/1/cgroup") == "0::/"
    assert str(box.pid) not in box.shown("cat /sys/fs/cgroup/cgroup.procs").split()
    assert "1" in box.shown("cat /sys/fs/cgroup/cgroup.procs").split()
    assert "Read-only" in box.exec("mkdir /sys/fs/cgroup/inner").stderr
    assert box.shown("grep -o 'cgroup2 ro[^ ]*' /proc/mounts | head -1").startswith("cgroup2 ro,nosuid,nodev,noexec")


def test_a_writable_mount_lets_it_make_groups_below_its_own(make: Make) -> None:
    box = make(None, {"pids": {"limit": 40}}, mounts=[cgroup_mount("rw")])

    script = "cd /sys/fs/cgroup; mkdir inner; echo 1 > inner/cgroup.procs; echo $$ > inner/cgroup.procs; "
    assert box.shown(script + "cat /proc/1/cgroup") == "0::/inner"
    assert (box.group / "inner/cgroup.procs").read_text().split() == [str(box.pid)]
    # a group that passes controllers on takes no process: exec goes where the first one is
    box.shown(script + "echo +pids > cgroup.subtree_control")
    assert box.shown("cat /proc/self/cgroup") == "0::/inner"
    box.update({"pids": {"limit": 33}})
    assert box.read("pids.max") == "33"


def test_without_a_namespace_the_mount_shows_the_hosts_groups_read_only_as_with_runc(make: Make) -> None:
    kinds = [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network")]
    box = make(mounts=[cgroup_mount("ro")], linux={"namespaces": kinds})

    assert box.shown("cat /proc/1/cgroup") == f"0::/guest/{box.id}"
    assert box.shown(f"cat /sys/fs/cgroup/guest/{box.id}/cgroup.procs").split()[0] == "1"
    assert "Read-only" in box.exec(f"mkdir /sys/fs/cgroup/guest/{box.id}/inner").stderr


def test_a_weight_of_io_binds_or_is_refused(make: Make, refused: Callable[..., str]) -> None:
    resources = {"blockIO": {"weight": 500}}
    known = any((CGROUPS / "system.slice" / name).exists() for name in ("io.weight", "io.bfq.weight"))
    if known:
        box = make(None, resources)
        files = [name for name in ("io.weight", "io.bfq.weight") if (box.group / name).exists()]
        assert any(box.read(name) in {"default 4950", "default 500"} for name in files)
    else:
        text = refused(resources)
        assert "blkio-weight can't be enforced" in text
        assert len(text.splitlines()) <= 2


def test_a_throttle_of_io_is_in_force(make: Make) -> None:
    disk = os.stat("/").st_dev
    rate = {"major": os.major(disk), "minor": os.minor(disk), "rate": MIB}
    box = make(None, {"blockIO": {"throttleReadBpsDevice": [rate]}})

    assert box.read("io.max") == f"{os.major(disk)}:{os.minor(disk)} rbps={MIB} wbps=max riops=max wiops=max"


def test_cpus_are_named_or_refused(make: Make, refused: Callable[..., str]) -> None:
    resources = {"cpu": {"cpus": "0", "mems": "0"}}
    if "cpuset" in (CGROUPS / "cgroup.controllers").read_text().split():
        assert make(None, resources).read("cpuset.cpus.effective") == "0"
    else:
        assert "cpuset-cpus can't be enforced" in refused(resources)


def test_a_limit_that_no_file_takes_is_refused(refused: Callable[..., str]) -> None:
    assert "unified nonsense.max can't be enforced" in refused({"unified": {"nonsense.max": "1"}})


def test_kill_all_and_delete_leave_no_process(make: Make, ended: Callable[[Box], None]) -> None:
    box = make()
    box.runtime("exec", "--detach", box.id, "sleep", "999")
    assert len(box.read("cgroup.procs").split()) == 2

    box.said("kill", "--all", box.id, "KILL")
    ended(box)
    box.said("delete", box.id)
    assert not box.group.exists()


def test_runtime_update_and_delete_work_on_what_is_paused(make: Make) -> None:
    box = make()
    box.said("pause", box.id)

    box.said("update", "--pids-limit", "9", box.id)
    assert box.read("pids.max") == "9"
    assert box.status() == "paused"


def test_a_user_namespace_has_its_own_group_writable_by_its_root(make: Make) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    linux = {"uidMappings": maps, "gidMappings": maps}
    box = make(namespaces=["user"], mounts=[cgroup_mount("rw")], linux=linux, process={"user": {"uid": 0, "gid": 0}})

    assert box.shown("stat -c %u /sys/fs/cgroup/cgroup.procs") == "0"
    box.shown("mkdir /sys/fs/cgroup/inner")
