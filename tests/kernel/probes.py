"""Attempts from inside a container: `probe.c`, compiled once per session, and ways to run it in each mode."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
import tty
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable, Sequence

    Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
STOCKADE = [sys.executable, "-m", "stockade"]
MODES = ("privileged", "normal", "rootless")
CONFINED = ("normal", "rootless")
#: where `contained` shows the directory of the program
INSIDE = "/probe"


@functools.cache
def directory() -> Path:
    """Give a directory that everyone may enter, with the static program `probe` in it."""
    found = Path(tempfile.mkdtemp(prefix="stockade-probe-"))
    atexit.register(shutil.rmtree, found, ignore_errors=True)
    found.chmod(0o755)
    source = Path(__file__).with_name("probe.c")
    subprocess.run(
        ["gcc", "-std=gnu11", "-O1", "-Wall", "-static", "-o", str(found / "probe"), str(source)], check=True
    )
    return found


def probe() -> str:
    """Give the program's path on the host."""
    return str(directory() / "probe")


APPLETS = ("sh", "ls", "cat", "id", "touch", "true", "chown", "chmod", "stat", "mkdir", "mount", "timeout")


def small_root(path: Path, uid: int, gid: int) -> Path:
    """Make a root file system with a static busybox that belongs to this uid and gid, smaller than conftest's."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "there is no busybox: run ./dev setup as root, or install busybox-static"
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "var"):
        (path / name).mkdir(parents=True)
    (path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
    shutil.copy(busybox, path / "bin/busybox")
    for name in APPLETS:
        (path / "bin" / name).symlink_to("busybox")
    (path / "tmp").chmod(0o1777)
    for made in (path, *path.rglob("*")):
        os.chown(made, uid, gid, follow_symlinks=False)
    return path


class Ways:
    """Runs programs in a container of each mode, on the embedded root of --host or on a rootfs."""

    def __init__(self, stockade: Run, as_user: Run, user: pwd.struct_passwd) -> None:
        self.stockade, self.as_user, self.user = stockade, as_user, user

    def run(
        self,
        mode: str,
        argv: Sequence[str],
        options: Sequence[str] = (),
        *,
        rootfs: Path | None = None,
        **others: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` in the mode; a rootless container is the test user's, the others are root's."""
        root = ["--host"] if rootfs is None else ["--rootfs", str(rootfs)]
        words = ["run", "--rm", "-v", f"{directory()}:{INSIDE}:ro", *options, *root, "--", *argv]
        if mode == "rootless":
            return self.as_user([*STOCKADE, *words], **others)
        return self.stockade(words[0], "--mode", mode, *words[1:], **others)

    def probe(
        self, mode: str, *attempts: str, options: Sequence[str] = (), rootfs: Path | None = None, **others: Any
    ) -> dict[str, str]:
        """Run `probe` with these arguments and give what it found. Fails where the container did not start."""
        done = self.run(mode, [f"{INSIDE}/probe", *attempts], options, rootfs=rootfs, **others)
        assert done.returncode == 0, done.stderr
        return answers(done.stdout)


def answers(text: str) -> dict[str, str]:
    """Give the lines `name: answer` of probe as a mapping."""
    return dict(re.findall(r"^([^:\n]+): ?(.*?)\r?$", text, re.MULTILINE))


def on_host(*attempts: str, **others: Any) -> dict[str, str]:
    """Run `probe` on the host, with nothing around it: the proof that an attempt can succeed."""
    return outside([probe(), *attempts], **others)


def outside(argv: Sequence[str], **others: Any) -> dict[str, str]:
    """Run a command line of another tool that ends in probe, and give what it found."""
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL}
    done: subprocess.CompletedProcess[str] = subprocess.run(argv, check=False, **(options | others))
    assert done.returncode == 0, done.stderr
    return answers(done.stdout)


def on_terminal(argv: Sequence[str], **others: Any) -> tuple[str, int]:
    """Run a command with a terminal of its own as stdin, stdout, stderr and controlling terminal.

    Gives what it wrote, and how many characters wait on the terminal as if somebody had typed them.
    """
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        options: dict[str, Any] = {
            "stdin": slave, "stdout": slave, "stderr": slave, "start_new_session": True,
            "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        }  # fmt: skip
        said = b""
        with subprocess.Popen(argv, **(options | others)) as process:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                ended = process.poll() is not None
                if select.select([master], [], [], 0 if ended else 0.1)[0]:
                    said += os.read(master, 65536)
                elif ended:
                    break
        typed = struct.unpack("i", fcntl.ioctl(slave, termios.FIONREAD, b"\0" * 4))[0]
        return said.decode(), typed
    finally:
        os.close(master)
        os.close(slave)
