"""`stockade run` and `stockade audit` on cgroup v2 alone: the three modes, with limits, as root and as a user."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.guest.boxes import MIB, as_user, call, group_of, rootfs

if TYPE_CHECKING:
    from collections.abc import Generator

LIMITS = ("--memory", "64m", "--memory-swap", "64m", "--pids-limit", "33", "--cpus", "0.5")
ENVIRONMENT = (
    "env",
    f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}",
    "PYTHONDONTWRITEBYTECODE=1",
)
STOCKADE = (*ENVIRONMENT, "/usr/bin/python3", "-m", "stockade")
WHO = {
    "root": [("privileged", False), ("normal", False), ("rootless", False)],
    "user": [("rootless", True), ("normal", True)],
}
CASES = [pytest.param(mode, user, id=f"{mode}-{who}") for who, pairs in WHO.items() for mode, user in pairs]


def command(*words: str, user: bool) -> tuple[str, ...]:
    return as_user(*STOCKADE, *words) if user else (*STOCKADE, *words)


@contextlib.contextmanager
def running(mode: str, *, user: bool) -> Generator[tuple[str, int]]:
    """Run a container with limits; give its name and the id of its program."""
    name = f"guest-{uuid.uuid4().hex[:8]}"
    seconds = str(100000 + int(uuid.uuid4().int % 100000))
    words = (
        "run",
        "--init",
        "--mode",
        mode,
        "--rm",
        "--name",
        name,
        *LIMITS,
        "--rootfs",
        str(rootfs()),
        "--",
        "sleep",
        seconds,
    )
    with Path("/tmp/said").open("w") as said:
        process = subprocess.Popen(command(*words, user=user), stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        yield name, found(process, seconds)
    finally:
        call("pkill", "-TERM", "-f", f"^/usr/bin/python3 -m stockade run .*{name}")
        process.wait(30)


def found(process: subprocess.Popen[Any], seconds: str) -> int:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if Path("/proc", entry, "cmdline").read_bytes() == b"sleep\0" + seconds.encode() + b"\0":
                    return int(entry)
        time.sleep(0.05)
    raise AssertionError(Path("/tmp/said").read_text())


@pytest.mark.parametrize(("mode", "user"), CASES)
def test_limits_hold_and_the_audit_sees_them(mode: str, user: bool) -> None:  # noqa: FBT001 - a parameter
    with running(mode, user=user) as (name, pid):
        group = group_of(pid)
        files = {file: (group / file).read_text().strip() for file in ("memory.max", "pids.max", "cpu.max")}
        assert files == {"memory.max": str(64 * MIB), "pids.max": "33", "cpu.max": "50000 100000"}
        done = call(*command("audit", f"container:{name}", "--format", "json", user=user))
        assert done.returncode == 0, done
        targets = {target["kind"]: target for target in json.loads(done.stdout)["targets"]}
        assert targets["container"]["name"] == name
        assert targets["container"]["mode"] == mode
        print(json.dumps(targets["container"], indent=1))
    assert not group.exists()


@pytest.mark.parametrize(("mode", "user"), CASES)
def test_a_container_that_takes_too_much_is_ended(mode: str, user: bool) -> None:  # noqa: FBT001 - a parameter
    fill = ("dd", "if=/dev/zero", "of=/tmp/file", "bs=1M", "count=100")
    words = ("run", "--mode", mode, "--rm", "-m", "32m", "--memory-swap", "32m", "--tmpfs", "/tmp")

    done = call(*command(*words, "--rootfs", str(rootfs()), "--", *fill, user=user))

    assert done.returncode == 137, done


@pytest.mark.parametrize(("mode", "user"), CASES)
def test_a_group_of_its_own_is_all_that_is_seen(mode: str, user: bool) -> None:  # noqa: FBT001 - a parameter
    words = ("run", "--mode", mode, "--rm", *LIMITS, "--rootfs", str(rootfs()), "--", "cat", "/proc/self/cgroup")

    done = call(*command(*words, user=user))

    assert (done.returncode, done.stdout) == (0, "0::/\n"), done


def test_a_device_that_is_not_given_is_refused_by_the_group() -> None:
    script = "mknod /tmp/k c 1 11 && (: < /tmp/k) || echo refused; : < /dev/null && echo null"
    words = ("run", "--mode", "normal", "--userns", "host", "--cap-add", "MKNOD", "--rm", "--tmpfs", "/tmp:dev")

    done = call(*command(*words, "--rootfs", str(rootfs()), "--", "sh", "-c", script, user=False))

    assert done.stdout.split() == ["refused", "null"], done
    assert "Operation not permitted" in done.stderr


def test_info_says_that_everything_can_be_enforced() -> None:
    done = call(*STOCKADE, "info")

    assert done.returncode == 0, done
    print(done.stdout)
