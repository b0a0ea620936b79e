"""A user without subordinate ids: a container of the own id alone, created, joined and deleted by that user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.runtime import spec_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Runtime = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.kernel

USER = 65432  # has no subordinate ids
SETS = ("bounding", "effective", "permitted")
COMMAND = [sys.executable, "-I", "-c", "from stockade.sandbox.runtime.main import main; main()"]


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a directory that the user can reach, with a root file system in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        for directory in ("rootfs/bin", "rootfs/proc", "rootfs/dev", "rootfs/sys", "bundle", "run"):
            (place / directory).mkdir(parents=True)
        shutil.copy("/bin/busybox", place / "rootfs/bin/busybox")
        for below in (place, *place.rglob("*")):
            os.chown(below, USER, USER)
        yield place


@pytest.fixture
def runtime(home: Path) -> Iterator[Runtime]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        # Files: whoever waits for the end of a pipe would wait for the container, which has it, too.
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            done = subprocess.run(
                [*COMMAND, "--root", str(home / "run"), *words],
                user=USER, group=USER, extra_groups=[], cwd=home / "bundle", env={"PATH": "/bin"},
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors, check=False, timeout=30,
            )  # fmt: skip
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(words, done.returncode, output.read(), errors.read())

    yield run
    run("delete", "--force", "one")


def write(home: Path, *args: str, **process: object) -> dict[str, Any]:
    config = spec_template.template(rootless=True)
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": USER, "size": 1}]
    config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": USER, "size": 1}]
    config["process"] |= {"args": ["/bin/busybox", *args], "terminal": False} | process
    config["root"]["path"] = str(home / "rootfs")
    (home / "bundle/config.json").write_text(json.dumps(config))
    return config


def test_a_container_of_the_own_id_is_created_joined_and_deleted(home: Path, runtime: Runtime) -> None:
    write(home, "sleep", "1000")

    created = runtime("create", "one")
    assert created.returncode == 0, created.stderr
    assert runtime("start", "one").returncode == 0
    shown = runtime("exec", "one", "/bin/busybox", "grep", "-E", "^(Uid|Gid|Groups|CapPrm)", "/proc/self/status")

    assert shown.returncode == 0, shown.stderr
    lines = dict(line.split(":", 1) for line in shown.stdout.splitlines())
    assert lines["Uid"].split() == ["0"] * 4
    assert lines["Gid"].split() == ["0"] * 4
    assert runtime("delete", "--force", "one").returncode == 0
    assert not (home / "run/one").exists()


def test_groups_that_cannot_be_set_are_refused_by_create_and_by_exec(home: Path, runtime: Runtime) -> None:
    write(home, "sleep", "1000", user={"uid": 0, "gid": 0, "additionalGids": [5]})
    refused = runtime("create", "one")
    assert (refused.returncode, "additional groups can't be set" in refused.stderr) == (1, True)

    write(home, "sleep", "1000")
    assert runtime("create", "one").returncode == 0
    refused = runtime("exec", "--additional-gids", "5", "one", "/bin/busybox", "id")

    assert (refused.returncode, "additional groups can't be set" in refused.stderr) == (255, True)


def test_a_container_without_a_user_namespace_is_refused_before_anything_is_made(home: Path, runtime: Runtime) -> None:
    config = write(home, "true")
    config["linux"]["namespaces"].remove({"type": "user"})
    del config["linux"]["uidMappings"], config["linux"]["gidMappings"]
    (home / "bundle/config.json").write_text(json.dumps(config))

    refused = runtime("create", "one")

    assert refused.returncode == 1
    assert "a container without a user namespace needs root" in refused.stderr
    assert not (home / "run/one").exists()


#: looks for a file of the host behind every other process, and for one whose memory is open; as quickly as a shell can
SPY = """
echo up > /tmp/up
while :; do
    for process in /proc/[2-9]* /proc/[1-9][0-9]*; do
        [ -e $process/root$1 ] && echo $process/root
        [ -e $process/cwd/../../../../../..$1 ] && echo $process/cwd
    done
done > /tmp/found
"""


def test_cve_2016_9962_the_users_own_root_is_not_found_behind_a_process_that_joins(
    home: Path, runtime: Runtime
) -> None:
    """Root in the container is the same user outside: nothing but the order of the steps keeps it out."""
    every = {name: ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID"] for name in SETS}
    for name in ("tmp", "mark"):
        (home / "rootfs/tmp" if name == "tmp" else home / name).mkdir()
    os.chown(home / "rootfs/tmp", USER, USER)
    config = write(home, "sh", "-c", SPY, "spy", str(home / "mark"), capabilities=every)
    config["root"]["readonly"] = False
    (home / "bundle/config.json").write_text(json.dumps(config))
    assert runtime("create", "one").returncode == 0
    pid = json.loads(runtime("state", "one").stdout)["pid"]
    assert runtime("start", "one").returncode == 0
    wait_for((home / "rootfs/tmp/up").exists)
    for _ in range(25):
        assert runtime("exec", "one", "/bin/busybox", "true").returncode == 0
    assert (home / "rootfs/tmp/found").read_text() == ""
    # One that only enters the namespaces of users and processes is found: the attack works.
    enter = ["/usr/bin/nsenter", "--target", str(pid), "--user", "--pid", "--preserve-credentials", "/bin/sleep", "20"]
    with subprocess.Popen(enter, user=USER, group=USER, extra_groups=[]) as weak:
        wait_for(lambda: "root" in (home / "rootfs/tmp/found").read_text())
        weak.kill()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it doesn't come"
        time.sleep(0.01)
