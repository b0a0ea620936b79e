"""A bundle whose program waits, and the runtime's command on it, for tests of what surrounds a container."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RUNTIME = Path(sys.executable).with_name("stockade-runtime")


def write(directory: Path, rootfs: Path, *, args: tuple[str, ...] = ("/bin/sleep", "60"), **linux: Any) -> Path:
    """Write a config.json into a new directory: the program, the root file system, and what `linux` says."""
    directory.mkdir()
    kinds = ("pid", "mount", "ipc", "uts", "network")
    document = {
        "ociVersion": "1.2.0",
        "process": {"cwd": "/", "args": list(args), "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": str(rootfs)},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "annotations": linux.pop("annotations", {}),
        "linux": {"namespaces": [{"type": kind} for kind in kinds]} | linux,
    }
    directory.joinpath("config.json").write_text(json.dumps(document))
    return directory


class Runtime:
    """`stockade-runtime` with a root of its own and the global options given."""

    def __init__(self, root: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.command = [str(RUNTIME), "--root", str(root), *options]
        self.env = env

    def __call__(self, *args: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command. Output goes to files: a container would hold the ends of a pipe open."""
        import tempfile

        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                [*self.command, *args], check=False, input=text, stdout=out, stderr=err, text=True, timeout=60,
                env=self.env,
            )  # fmt: skip
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())

    def ok(self, *args: str | Path, text: str = "") -> str:
        """Run one command that has to succeed and give its output."""
        done = self(*args, text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self, identity: str) -> str:
        """Give OCI's word for the state of a container."""
        return str(json.loads(self.ok("state", identity))["status"])
