"""Hostile containers, damaged state, odd numbers and sudden ends against `stockade-runtime`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.bundles import Runtime, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[dict[str, Any]], object]

pytestmark = pytest.mark.kernel
NULL = subprocess.DEVNULL
LISTING = "ls -l /proc/self/fd"
PTS = {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}


@pytest.fixture
def runtime(public_tmp: Path) -> Iterator[Runtime]:
    """Give the command with a root of its own; what a test leaves is removed."""
    root = public_tmp / "state"
    run = Runtime(root)
    yield run
    for name in os.listdir(root) if root.exists() else ():
        if run("delete", "--force", name).returncode:
            shutil.rmtree(root / name)


@pytest.fixture
def bundle(public_tmp: Path, rootfs: Path) -> Callable[..., Path]:
    """Write a bundle of a program, changed by what is given."""
    made: list[Path] = []

    def make(*args: str, change: Change = lambda _: None) -> Path:
        directory = write(public_tmp / f"bundle{len(made)}", rootfs, args=args or ("/bin/sleep", "60"))
        made.append(directory)
        config = json.loads((directory / "config.json").read_text())
        change(config)
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    return make


def started(runtime: Runtime, directory: Path, identity: str = "hostile") -> int:
    runtime.ok("create", "--bundle", directory, identity)
    runtime.ok("start", identity)
    return int(json.loads(runtime.ok("state", identity))["pid"])


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it doesn't come"
        time.sleep(0.01)


# ---- what reaches the program ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("preserved", [0, 2])
def test_of_many_inherited_descriptors_only_preserved_ones_reach_program_hooks_and_exec(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path, public_tmp: Path, preserved: int
) -> None:
    (public_tmp / "mine").write_text("")
    words = ["--preserve-fds", str(preserved)] if preserved else []
    names = ("createRuntime", "createContainer", "poststart")
    hooks = {
        name: [{"path": "/bin/sh", "args": ["sh", "-c", f"{LISTING} > {public_tmp}/{name}"], "env": ["PATH=/bin"]}]
        for name in names
    }
    hooks["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", f"{LISTING} > /tmp/hook"], "env": ["PATH=/bin"]}
    ]
    directory = bundle("/bin/sh", "-c", f"{LISTING} > /tmp/program; sleep 60", change=lambda c: c.update(hooks=hooks))
    script = f'exec 3<"$1"; {"; ".join(f"exec {n}<&3" for n in range(4, 10))}; shift; "$@" <&- >&- 2>&-'

    def call(*more: str | Path) -> None:
        command = ["/bin/sh", "-c", script, "sh", str(public_tmp / "mine"), *runtime.command, *map(str, more)]
        assert subprocess.run(command, timeout=20, check=False).returncode == 0

    call("create", *words, "--bundle", directory, "hostile")
    call("start", "hostile")
    call("exec", *words, "hostile", "/bin/sh", "-c", f"{LISTING} > /tmp/exec")

    wait_for((rootfs / "tmp/program").read_text)
    for inside in ("program", "exec"):
        assert (rootfs / "tmp" / inside).read_text().count("/mine") == preserved
    for text in ((public_tmp / name).read_text() for name in names):
        assert text.count(" -> ") >= 3
        assert "/mine" not in text
    assert "/mine" not in (rootfs / "tmp/hook").read_text()


def test_cve_2024_21626_exec_begins_in_no_directory_behind_a_magic_link(
    runtime: Runtime, bundle: Callable[..., Path]
) -> None:
    started(runtime, bundle())
    places = [f"/proc/self/fd/{number}" for number in range(3, 10)]
    for place in [*places, "/proc/self/cwd", "/proc/1/root", "/proc/thread-self/root"]:
        done = runtime("exec", "--cwd", place, "hostile", "/bin/sh", "-c", "echo began")
        assert (done.returncode, done.stdout) == (255, ""), place


@pytest.mark.parametrize(
    "ptmx", ["mkfifo /dev/pts/ptmx", "mknod /dev/pts/ptmx c 1 3", "ln -s /proc/1/root/dev/ptmx /dev/pts/"]
)
def test_exec_takes_no_terminal_of_what_a_container_puts_in_its_place(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path, ptmx: str
) -> None:
    for name in ("umount", "mkfifo", "mknod", "ln", "rm"):
        if not (rootfs / "bin" / name).exists():
            (rootfs / "bin" / name).symlink_to("busybox")

    def change(config: dict[str, Any]) -> None:
        dev = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
        config["mounts"] += [dev, PTS]
        names = ["CAP_SYS_ADMIN", "CAP_MKNOD"]
        config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)

    script = f"umount /dev/pts && rm -f /dev/pts/ptmx; {ptmx} && touch /tmp/up; sleep 60"
    started(runtime, bundle("/bin/sh", "-c", script, change=change))
    wait_for((rootfs / "tmp/up").exists)
    done = runtime("exec", "--tty", "hostile", "/bin/true")
    assert done.returncode == 255
    assert "open a terminal in the container" in done.stderr


# ---- numbers and sizes ----------------------------------------------------------------------------------------------


def test_an_id_that_the_kernel_would_take_for_another_is_refused(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    """setresuid(2) takes 2**32 - 1 for "as it is", root; and 2**32 + 5, cut to 32 bits, is group 5."""
    for name in ("uid", "gid"):
        done = runtime(
            "create",
            "--bundle",
            bundle(change=lambda c, n=name: c["process"]["user"].update({n: 2**32 - 1})),
            "hostile",
        )
        assert (done.returncode, f"$.process.user.{name}" in done.stderr) == (1, True)
    started(runtime, bundle())
    for words in (
        ("--user", "4294967295"), ("--user", "4294967296"), ("--user", "0:4294967295"), ("--user", "9" * 5000),
        ("--additional-gids", "4294967295"), ("--additional-gids", "4294967301"),
    ):  # fmt: skip
        done = runtime("exec", *words, "hostile", "/bin/id")
        assert (done.returncode, done.stdout, "expected" in done.stderr) == (255, "", True), words


def test_a_thousand_mounts_and_long_words_are_taken_and_what_does_not_fit_is_told(
    runtime: Runtime, bundle: Callable[..., Path]
) -> None:
    def mounts(number: int) -> Change:
        one = {"type": "bind", "source": "/etc/hostname", "options": ["bind", "ro"]}
        return lambda c: c["mounts"].extend([{**one, "destination": f"/tmp/m{n}"} for n in range(number)])

    def long(config: dict[str, Any]) -> None:
        mounts(1000)(config)
        config["process"]["args"] += ["a" * 100_000, *["b"] * 20_000]
        config["process"]["env"] += ["LONG=" + "c" * 100_000]

    directory = bundle("/bin/sh", "-c", "wc -l < /proc/self/mountinfo; echo $# ${#1} ${#LONG}", "sh", change=long)
    lines, words = runtime.ok("run", "--bundle", directory, "hostile").split("\n", 1)
    assert int(lines) > 1000
    assert words.split() == ["20001", "100000", "100000"]
    done = runtime("run", "--bundle", bundle(change=mounts(2500)), "hostile")
    assert (done.returncode, "more than 2000 mounts" in done.stderr) == (1, True)


# ---- damaged files --------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Change | bytes] = {
    "empty": b"",
    "cut": b'{"ociVersion":"1.2.0","pid":',
    "list": b"[]\n",
    "huge": b'{"x":"' + b"y" * (1 << 26) + b'"}\n',
    "words for a pid": lambda state: state.update(pid="abc"),
    "negative pid": lambda state: state.update(pid=-1),
    "endless pid": lambda state: state.update(pid=10**30),
    "numbers for groups": lambda state: state.update(cgroups=[1, 2]),
    "number for hooks": lambda state: state.update(hooks=7),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_told_of_in_one_line_by_every_command(
    runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path, damage: str
) -> None:
    runtime.ok("create", "--bundle", bundle(), "hostile")
    path = public_tmp / "state/hostile/state.json"
    good, how = path.read_bytes(), DAMAGES[damage]
    if callable(how):
        changed = json.loads(good)
        how(changed)
        path.write_text(json.dumps(changed, separators=(",", ":")) + "\n")
    else:
        path.write_bytes(how)
    for words in (("start", "hostile"), ("exec", "hostile", "/bin/true"), ("delete", "--force", "hostile")):
        done = runtime(*words)
        assert done.returncode != 0
        assert "state.json" in done.stderr
        assert "internal error" not in done.stderr
    assert runtime("list").returncode == 0
    path.write_bytes(good)
    runtime.ok("delete", "--force", "hostile")


def test_a_pid_of_another_time_is_not_touched(runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        runtime.ok("create", "--bundle", bundle(), "hostile")
        path = public_tmp / "state/hostile/state.json"
        good = path.read_bytes()
        path.write_text(json.dumps(json.loads(good) | {"pid": other.pid}, separators=(",", ":")) + "\n")
        codes = [
            runtime(*words).returncode
            for words in (("kill", "hostile", "KILL"), ("start", "hostile"), ("exec", "hostile", "/bin/true"))
        ]
        path.write_bytes(good)
        lives = other.poll() is None
        other.kill()
    assert (codes, lives) == ([1, 1, 255], True)
    runtime.ok("delete", "--force", "hostile")


# ---- sudden ends ----------------------------------------------------------------------------------------------------


def processes_with(word: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("command", ["create", "exec"])
def test_a_command_killed_at_any_moment_leaves_no_process(
    runtime: Runtime, bundle: Callable[..., Path], command: str
) -> None:
    directory = bundle()
    if command == "exec":
        started(runtime, directory)
    for number in range(16):
        words = ["create", "--bundle", str(directory), f"k{number}"]
        if command == "exec":
            words = ["exec", "hostile", "/bin/sleep", "5432.1"]
        with subprocess.Popen([*runtime.command, *words], stdin=NULL, stdout=NULL, stderr=NULL) as process:
            time.sleep(number * 0.005)
            process.kill()
        if command == "create":
            runtime.ok("delete", "--force", f"k{number}")
    wait_for(lambda: not processes_with("5432.1"))
    assert runtime.ok("list", "--quiet").split() == (["hostile"] if command == "exec" else [])
    assert not list(Path("/sys/fs/cgroup").glob("*/k[0-9]*"))
