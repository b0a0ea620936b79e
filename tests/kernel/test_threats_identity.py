"""Who a payload is and what it keeps: ids, groups, umask, sets; names and places that others could choose for us.

Each attempt is also made where nothing stands in its way, and succeeds there.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from stockade import Sandbox, StockadeError
from stockade.sandbox import store
from tests.kernel import probes
from tests.kernel.probes import INSIDE, MODES, Ways

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.probes import Run

pytestmark = pytest.mark.kernel

EVERY_MODE = pytest.mark.parametrize("mode", MODES)
ADM = 4


@pytest.fixture
def ways(stockade: Run, as_user: Run, unprivileged: pwd.struct_passwd) -> Ways:
    return Ways(stockade, as_user, unprivileged)


@pytest.fixture
def of_group(public_tmp: Path) -> Path:
    """Give a directory with a file that root and the group adm may read."""
    path = public_tmp / "shared"
    path.mkdir()
    (path / "log").write_text("for adm only\n")
    (path / "log").chmod(0o640)
    os.chown(path / "log", 0, ADM)
    return path


MAPS = [("normal", ()), ("normal", ("--userns", "host")), ("privileged", ()), ("rootless", ()),
        ("rootless", ("--userns", "nomap")), ("rootless", ("--userns", "keep-id"))]  # fmt: skip


@pytest.mark.parametrize(("mode", "options"), MAPS)
def test_supplementary_groups_of_the_caller_are_dropped(
    ways: Ways, of_group: Path, mode: str, options: tuple[str, ...]
) -> None:
    volume = ("-v", f"{of_group}:/shared:ro", "--user", "1000" if "keep-id" not in options else str(ways.user.pw_uid))

    found = ways.probe(mode, "ids", "--", "open", "/shared/log", options=(*options, *volume), extra_groups=[ADM, 27])

    assert found["groups"] == ""
    assert found["read /shared/log"] == "EACCES"


def test_a_runtime_that_keeps_groups_lets_the_payload_read_with_them(
    of_group: Path, unprivileged: pwd.struct_passwd
) -> None:
    found = probes.outside(
        ["bwrap", "--bind", "/", "/", "--unshare-all", probes.probe(), "ids", "--", "open", f"{of_group}/log"],
        user=unprivileged.pw_uid, group=unprivileged.pw_gid, extra_groups=[ADM],
    )  # fmt: skip

    assert found[f"read {of_group}/log"] == "ok"


def test_with_a_single_id_the_kernel_keeps_the_groups_and_they_are_told(ways: Ways, of_group: Path) -> None:
    """user_namespaces(7): who maps itself alone must give setgroups(2) up, lest a group that denies be dropped.

    The one place where groups stay: without root nothing takes them away, so what they open must not be mounted.
    """
    user = ways.user
    single = ("--uidmap", f"0:{user.pw_uid}:1", "--gidmap", f"0:{user.pw_gid}:1", "-v", f"{of_group}:/shared:ro")

    found = ways.probe("rootless", "ids", options=single, extra_groups=[ADM])

    assert found["groups"] in {"65534", "0 65534", "65534 0"}


@EVERY_MODE
def test_the_umask_is_not_the_callers(ways: Ways, mode: str) -> None:
    assert ways.probe(mode, "ids", umask=0)["umask"] == "0022"
    assert ways.probe(mode, "ids", umask=0o077)["umask"] == "0022"
    assert probes.outside(["bwrap", "--bind", "/", "/", probes.probe(), "ids"], umask=0)["umask"] == "0000"


@EVERY_MODE
def test_what_the_runtime_makes_is_for_its_owner_to_write(ways: Ways, public_tmp: Path, mode: str) -> None:
    owner = (ways.user.pw_uid, ways.user.pw_gid) if mode == "rootless" else (0, 0)
    root = probes.small_root(public_tmp / "root", *owner)
    for name in ("dev", "proc", "sys"):
        (root / name).rmdir()

    done = ways.run(mode, ["true"], ("--tmpfs", "/new/place", "--workdir", "/new/work/here"), rootfs=root, umask=0)

    assert done.returncode == 0, done.stderr
    made = [root / name for name in ("dev", "proc", "sys", "new", "new/place", "new/work", "new/work/here")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o755}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {owner}


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("normal", ()),
        ("normal", ("--user", "1000")),
        ("normal", ("--cap-drop", "ALL")),
        ("normal", ("--security-opt", "no-new-privileges=false")),
        ("normal", ("--userns", "host", "--cap-drop", "CHOWN")),
        ("privileged", ()),
        ("rootless", ()),
        ("rootless", ("--cap-add", "SETUID,SETGID")),
    ],
)
def test_an_init_never_has_more_than_the_program(ways: Ways, mode: str, options: tuple[str, ...]) -> None:
    done = ways.run(mode, [f"{INSIDE}/probe", "status", "1", "--", "status", "self"], ("--init", *options))

    assert done.returncode == 0, done.stderr
    own: dict[str, int] = {}
    first: dict[str, int] = {}
    for line in done.stdout.splitlines():
        who, name, value = line.replace(":", "").split()
        (first if who == "1" else own)[name] = int(value, 16)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert first[name] & ~own[name] == 0, name
    assert (first["Seccomp"], first["NoNewPrivs"]) == (own["Seccomp"], own["NoNewPrivs"])


@pytest.mark.parametrize(("mode", "expected"), [("normal", 0x4FB), ("rootless", 0)])
def test_the_bounding_set_is_no_more_than_the_mode_says(ways: Ways, mode: str, expected: int) -> None:
    done = ways.run(mode, [f"{INSIDE}/probe", "status", "self"])

    sets = {line.split()[1]: int(line.split()[2], 16) for line in done.stdout.splitlines() if "Cap" in line}
    assert sets["CapBnd:"] == sets["CapPrm:"] == expected


@EVERY_MODE
def test_a_program_with_the_callers_ids_gets_no_capability_back_by_execve(ways: Ways, mode: str) -> None:
    """uid 0 gets the bounding set at each execve; so that must be all there is."""
    script = f"{INSIDE}/probe status self"

    direct = ways.run(mode, [f"{INSIDE}/probe", "status", "self"], ("--cap-drop", "ALL"))
    again = ways.run(mode, ["sh", "-c", f"sh -c 'exec {script}'"], ("--cap-drop", "ALL"))

    assert direct.stdout == again.stdout
    assert all(int(line.split()[2], 16) == 0 for line in again.stdout.splitlines() if "Cap" in line)


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "a/b", "/etc/passwd", "names/../../x", "a\nb", "-x", "", "x" * 300]
)
def test_a_name_is_no_path(ways: Ways, name: str) -> None:
    """Neither on the command line nor for a caller in Python."""
    done = ways.run("normal", ["true"], (f"--name={name}",))

    assert done.returncode == 125
    with pytest.raises(StockadeError, match="letters, digits"):
        store.Entry("0" * 64, name or "/", {})
    assert not os.path.lexists("/run/stockade/x")
    assert not os.path.lexists("/run/stockade/" + "0" * 64)


@pytest.fixture
def stranger(public_tmp: Path) -> Iterator[dict[str, Any]]:
    """Give options of subprocess for a user without a directory in /run, whose state goes to /tmp."""
    uid = 54000 + os.getpid() % 1000
    place = f"/tmp/stockade-{uid}"
    subprocess.run(["rm", "-rf", place], check=True)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(probes.ROOT),
        "XDG_CACHE_HOME": str(public_tmp / "cache"),
    }
    (public_tmp / "cache").mkdir()
    os.chown(public_tmp / "cache", uid, uid)
    yield {"user": uid, "group": uid, "extra_groups": [], "cwd": "/", "env": environment}
    subprocess.run(["rm", "-rf", place], check=True)


def run_as(stranger: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [*probes.STOCKADE, "run", "--rm", "--host", "--", "true"]
    return subprocess.run(command, **stranger, capture_output=True, text=True, timeout=60, check=False)


def test_a_user_without_a_directory_in_run_has_one_in_tmp_alone(stranger: dict[str, Any]) -> None:
    done = run_as(stranger)

    assert done.returncode == 0, done.stderr
    found = os.lstat(f"/tmp/stockade-{stranger['user']}")
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (stranger["user"], 0o700)


@pytest.mark.parametrize(
    "trap", ["another's directory", "another's link", "own link", "open directory", "file", "fifo"]
)
def test_a_place_in_tmp_that_somebody_else_has_prepared_is_refused(
    stranger: dict[str, Any], public_tmp: Path, trap: str
) -> None:
    uid = stranger["user"]
    place, mine = f"/tmp/stockade-{uid}", public_tmp / "mine"
    mine.mkdir(mode=0o700)
    os.chown(mine, uid, uid)
    match trap:
        case "another's directory":
            os.mkdir(place, 0o700)
        case "another's link":
            os.symlink(mine, place)
        case "own link":
            os.symlink(mine, place)
            os.chown(place, uid, uid, follow_symlinks=False)
        case "open directory":
            os.mkdir(place, 0o755)
            os.chown(place, uid, uid)
        case "file":
            with open(place, "wb"):
                os.chown(place, uid, uid)
        case _:
            os.mkfifo(place)
            os.chown(place, uid, uid)

    done = run_as(stranger)

    assert done.returncode == 125
    assert "not a directory of this user alone" in done.stderr
    assert os.listdir(mine) == []


SCAN = """
import re, sys
words = [word[::-1].encode() for word in sys.argv[1:]]  # backwards, as these arguments are in the memory too
found = set()
with open("/proc/1/maps") as maps, open("/proc/1/mem", "rb", 0) as memory:
    for line in maps:
        start, end = (int(word, 16) for word in line.split()[0].split("-"))
        if " r" not in line or "[v" in line:
            continue
        try:
            memory.seek(start)
            data = memory.read(end - start)
        except OSError:
            continue
        found |= {word.decode() for word in words if word in data}
print(sorted(found))
"""

PATHS = f"""
import os, sys, tempfile
from stockade import Sandbox
from stockade.sandbox.mount_values import volume
scan = {SCAN!r}
with tempfile.TemporaryDirectory() as top:
    names = [top + "/" + word * 4 for word in ("first-", "second-")]
    for name in names:
        os.mkdir(name)
    first = Sandbox(init=True, mounts=tuple(volume(f"{{names[0]}}:/m{{number}}") for number in range(60)))
    first.run(["true"])
    second = Sandbox(init=True, mounts=(volume(f"{{names[1]}}:/m"),))
    words = [(word * 4)[::-1] for word in ("first-", "second-")]
    print(second.run(["python3", "-c", scan, *words]).stdout.decode())
"""


def test_an_init_does_not_remember_the_plan_of_another_container(as_user: Run) -> None:
    """One launcher serves a process, and an init is a copy of it. Its own plan is to be found there."""
    done = as_user([sys.executable, "-c", PATHS])

    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == str(["second-" * 4])


def test_what_is_on_stdin_can_be_read_by_name_and_not_be_changed() -> None:
    script = "cat; echo more >/proc/self/fd/0 || echo refused; cat /proc/self/fd/0"
    for user in ("0", "1000"):
        with Sandbox(user=user) as sandbox:
            result = sandbox.run(["sh", "-c", script], input=b"question\n")
        assert result.stdout == b"question\nrefused\nquestion\n", result.stderr


def test_processes_made_ahead_hold_nothing_of_the_run_before() -> None:
    script = "ls -A /tmp /dev/shm; touch /tmp/left /dev/shm/left; cat; cat /proc/self/environ"
    with Sandbox() as sandbox:
        for number in range(5):
            result = sandbox.run(["sh", "-c", script], input=f"in{number}", env={"RUN": str(number)})
            assert b"left" not in result.stdout
            assert result.stdout.count(b"RUN=") == 1
            assert f"RUN={number}\0".encode() in result.stdout


def test_the_report_names_the_ids_that_were_verified(ways: Ways) -> None:
    done = ways.run("normal", ["cat", "/proc/self/uid_map"], ("--json",))

    inside, outside, size = map(int, done.stdout.split())
    assert json.loads(done.stderr.splitlines()[-1])["verified"]["uid_map"] == [[inside, outside, size]]
    assert outside >= 1000
