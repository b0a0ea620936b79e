"""What an audit says of real containers: the three modes, and set-ups that are weak on purpose."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "reports/schema.json").read_text())
GRAVE = {"high", "critical"}
RUN = [sys.executable, "-m", "stockade", "run", "--host"]
BWRAP = ["bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", "--ro-bind", "/lib", "/lib",
         "--ro-bind", "/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev"]  # fmt: skip
PAYLOAD = "echo ready; exec sleep 1000"


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def payload(pid: int) -> int:
    """Give the process under a supervisor that runs the payload."""
    while below := children(pid):
        pid = below[-1]
    return pid


class Started:
    """Containers that were started and end with the test."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, argv: Sequence[str], **options: Any) -> int:
        options["env"] = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [*argv, "sh", "-c", PAYLOAD],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            **options,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 10
        while Path(f"/proc/{(pid := payload(process.pid))}/comm").read_text() != "sleep\n":
            assert time.monotonic() < deadline, "the payload did not start"
            time.sleep(0.01)
        return pid

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.kill(payload(process.pid), signal.SIGKILL)
            process.wait(10)
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def started() -> Iterator[Started]:
    """Start containers and end them again."""
    containers = Started()
    try:
        yield containers
    finally:
        containers.stop()


def audit(*pids: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "stockade", "audit", *[f"pid:{pid}" for pid in pids], "--format", "json"],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    return report


def judged(report: dict[str, Any], pid: int, part: str = "findings") -> list[dict[str, Any]]:
    """Give the findings, or paths, of the target that holds a process."""
    targets = [target["id"] for target in report["targets"] if pid in target["pids"]]
    assert targets, report["targets"]
    return [each for each in report[part] if each["target"] in targets]


def test_normal_and_rootless_give_nothing_high_and_privileged_gives_the_paths(
    started: Started, unprivileged: pwd.struct_passwd
) -> None:
    user: dict[str, Any] = {"user": unprivileged.pw_uid, "group": unprivileged.pw_gid, "extra_groups": []}

    normal = started.start([*RUN, "--mode", "normal"])
    rootless = started.start([*RUN, "--mode", "rootless"], **user)
    privileged = started.start([*RUN, "--mode", "privileged"])
    report = audit(normal, rootless, privileged)

    for pid in (normal, rootless):
        grave = [finding for finding in judged(report, pid) if finding["severity"] in GRAVE]
        assert [(finding["rule"], finding["evidence"]) for finding in grave] == []
        assert judged(report, pid, "paths") == []
    rules = {finding["rule"]: finding for finding in judged(report, privileged)}
    assert rules["privileged"]["severity"] == "critical"
    assert {"helper_program", "host_root"} <= rules.keys()
    assert {"no_seccomp", "mount_capability"}.isdisjoint(rules), "one cause, one finding"
    assert "AP-CORE" in {path["id"] for path in judged(report, privileged, "paths")}


def test_host_root_in_the_normal_mode_is_reported(started: Started) -> None:
    mapped, host = (
        started.start([*RUN, "--mode", "normal"]),
        started.start([*RUN, "--mode", "normal", "--userns", "host"]),
    )
    report = audit(mapped, host)

    assert "host_root" not in {finding["rule"] for finding in judged(report, mapped)}
    assert "host_root" in {finding["rule"] for finding in judged(report, host)}


def test_a_user_namespace_that_maps_zero_to_zero_leaves_core_pattern_open(started: Started) -> None:
    pid = started.start(BWRAP)
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()

    report = audit(pid)

    (path,) = [path for path in judged(report, pid, "paths") if path["id"] == "AP-CORE"]
    assert path["severity"] == "critical"
    assert any("core_pattern opened for writing" in line for line in path["evidence"])
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern, "a proof changes nothing"


def test_a_mapped_user_namespace_closes_core_pattern(started: Started, unprivileged: pwd.struct_passwd) -> None:
    user: dict[str, Any] = {"user": unprivileged.pw_uid, "group": unprivileged.pw_gid, "extra_groups": []}

    pid = started.start(BWRAP, **user)

    assert judged(audit(pid), pid, "paths") == []


def test_cve_2024_21626_an_open_directory_of_the_host_is_a_path(started: Started, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        leaky = started.start(BWRAP, pass_fds=(directory,))
        tight = started.start([*RUN, "--mode", "normal"], pass_fds=(directory,))
    finally:
        os.close(directory)
    report = audit(leaky, tight)

    (path,) = [path for path in judged(report, leaky, "paths") if path["id"] == "AP-FD"]
    assert any(str(tmp_path) in line for line in path["evidence"])
    assert judged(report, tight, "paths") == []
    assert "outside_descriptor" not in {finding["rule"] for finding in judged(report, tight)}


def test_an_engines_socket_is_found_through_a_read_only_mount(started: Started, public_tmp: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(public_tmp / "docker.sock"))
        listener.listen()
        pid = started.start([*BWRAP, "--ro-bind", str(public_tmp / "docker.sock"), "/run/docker.sock"])

        report = audit(pid)

    assert "AP-SOCK" in {path["id"] for path in judged(report, pid, "paths")}
    assert "engine_socket" in {finding["rule"] for finding in judged(report, pid)}
