"""The same command in three ways, for what has to be alike, and processes that stand for containers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stockade.sandbox.runtime import state
from tests.kernel.bundles import RUNTIME, Runtime

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

NEEDS_PYTHON = "its Python can't be found"


class Commands:
    """The same command three times: as installed, in Python, and with no Python to be found."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "state"
        (directory / "alone").mkdir()
        shutil.copy(RUNTIME, directory / "alone/stockade-runtime")
        self.whole, self.alone, self.python = Runtime(self.root), Runtime(self.root), Runtime(self.root)
        self.alone.command[:1] = [str(directory / "alone/stockade-runtime")]
        self.python.command[:1] = [sys.executable, "-m", "stockade.sandbox.runtime"]

    def pretend(self, pid: int, identity: str = "c", **changes: object) -> Path:
        """Write the state of a container whose first process is `pid`, and give its directory."""
        self.root.mkdir(mode=0o700, exist_ok=True)
        found = state.stat_of(pid)
        assert found is not None
        container = state.make(str(self.root), identity, {}, b"{}")
        data = {"ociVersion": "1.2.0", "id": identity, "pid": pid, "start": found[1], "bundle": "/b", "rootfs": "/r"}
        given = {"created": "2026-01-01T00:00:00.000000000Z", "annotations": {}, "cgroups": []} | changes
        container.write(**data, **given)
        container.close()
        return self.root / identity


def in_any_moment(text: str) -> str:
    """Give lines of a log without their time."""
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:]*Z", "TIME", text)


@contextmanager
def process(program: str) -> Generator[subprocess.Popen[str]]:
    """Run a Python program that says it is ready by a line."""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        try:
            yield running
        finally:
            running.kill()


def pid_of(runtime: Runtime) -> int:
    """Give the pid of the container "c"."""
    return int(json.loads(runtime.ok("state", "c"))["pid"])
