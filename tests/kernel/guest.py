"""A kernel of its own for what this host's lacks: user-mode Linux with AppArmor, on the host's files, in two seconds.

The guest's root is the host's, read-only (hostfs), so that the interpreter and the tree under test are there as they
are here; what it mounts and writes is the guest's. Its root has all capabilities.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /root
sh -c 'cd /run && . {script}' 2>&1
echo; echo {end}
echo o > /proc/sysrq-trigger
sleep 60
"""
END = "end of the guest"


def run(script: str, place: Path, *, timeout: float = 120) -> str:
    """Give what a shell script writes as root of the guest, in an empty /run; `place` is a directory for its files."""
    kernel = shutil.which("linux.uml")
    if kernel is None:
        pytest.fail("user-mode Linux is not installed: run ./dev setup as root", pytrace=False)
    (place / "script").write_text(script)
    init = place / "init"
    init.write_text(INIT.format(script=place / "script", end=END))
    init.chmod(0o755)
    arguments = [
        f"init={init}",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        "mem=512M",
        "quiet",
        "con=null",
        "con0=null,fd:1",
    ]
    done = subprocess.run(
        [kernel, *arguments, "apparmor=1", "security=apparmor", f"uml_dir={place}"],
        env={"HOME": str(place), "TMPDIR": str(place), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    text, found, _ = done.stdout.replace("\r\n", "\n").partition(END)
    assert found, done.stdout
    return text
