"""The auditor finds containers of stockade-runtime by their state, and what has changed since they were created."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stockade.audit.engine import evaluate
from stockade.audit.targets import live
from tests.kernel.bundles import Runtime, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stockade.audit.facts import Target

pytestmark = pytest.mark.kernel


@pytest.fixture
def container(public_tmp: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """Start a container `drifts` with 64 processes at most on a read-only root, whose state the auditor reads."""
    runtime = Runtime(public_tmp / "state")
    directory = write(public_tmp / "bundle", rootfs, resources={"pids": {"limit": 64}}, cgroupsPath="/drifts")
    config = json.loads((directory / "config.json").read_text())
    config["root"]["readonly"] = True
    (directory / "config.json").write_text(json.dumps(config))
    states = [(str(public_tmp / "state"), 0, "state.json")]
    monkeypatch.setattr("stockade.audit.targets.own.runtimes", lambda: states)
    runtime.ok("create", "--bundle", directory, "drifts")
    runtime.ok("start", "drifts")
    yield runtime
    runtime.ok("delete", "--force", "drifts")


def audited() -> Target:
    (target,) = live.audit_targets(["container:drifts"]).targets
    return target


def drift(target: Target) -> set[str]:
    return {each.title for each in evaluate(target).findings if each.rule == "declared_otherwise"}


def test_a_container_is_known_by_its_state_and_is_as_declared(container: Runtime) -> None:
    target = audited()

    assert target.name == "drifts"
    assert target.pids[0] == json.loads(container.ok("state", "drifts"))["pid"]
    assert drift(target) == set()


def test_what_was_loosened_after_the_creation_is_drift(container: Runtime) -> None:
    container.ok("update", "--pids-limit", "-1", "drifts")
    remount = ("/bin/busybox", "mount", "-o", "remount,bind,rw", "/")
    container.ok("exec", "--cap", "CAP_SYS_ADMIN", "drifts", *remount)

    assert drift(audited()) == {
        "resources.pids is declared 64 and is max",
        "mounts./ is declared read-only and is writable",
    }


def test_a_state_whose_process_has_ended_names_nothing(container: Runtime) -> None:
    container.ok("kill", "drifts", "KILL")
    command = [sys.executable, "-m", "stockade", "audit", "container:drifts"]

    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)

    assert done.returncode == 3
    assert "no running container is named drifts" in done.stderr
