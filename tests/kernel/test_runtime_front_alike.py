"""What stockade-runtime does without Python against the same done by it: words, signals, outputs, logs, exit codes."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stockade.sandbox.runtime import state
from stockade.sandbox.runtime.commands import kill
from tests.kernel.bundles import Runtime, write
from tests.kernel.fronts import NEEDS_PYTHON, Commands, in_any_moment, pid_of, process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

WAITING = "import time; print(flush=True); time.sleep(60)"
#: ends with the number of the first signal that comes
TELLING = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
print(flush=True)
raise SystemExit(100 + signal.sigwait(signal.valid_signals()))
"""
#: a container's process, in the launcher's memory file, that is killed before it has read the word to go on
DEAF = """
import os, select, socket, sys
if not os.readlink("/proc/self/exe").startswith("/memfd:"):
    program = os.memfd_create("stockade-init", 0)
    os.write(program, open("/proc/self/exe", "rb").read())
    os.execve(program, [sys.executable, "-c", sys.orig_argv[-1]], os.environ)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind({path!r})
listener.listen()
print(flush=True)
connection, _ = listener.accept()
select.select([connection], [], [])
"""


@pytest.fixture
def commands(public_tmp: Path) -> Iterator[Commands]:
    made = Commands(public_tmp)
    yield made
    for name in os.listdir(made.root) if made.root.exists() else ():
        made.python("delete", "--force", name)


@pytest.fixture
def bundle(public_tmp: Path, rootfs: Path) -> Path:
    return write(public_tmp / "bundle", rootfs, cgroupsPath=f"/{public_tmp.name}")


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "CONT", "WINCH"])
def test_a_signal_has_the_same_number_by_every_name(commands: Commands, name: str) -> None:
    number = kill.number(name)
    for word in (name, f"SIG{name}", str(number)):
        with process(TELLING) as running:
            commands.pretend(running.pid, word)
            commands.alone.ok("kill", word, word)
            assert running.wait(10) == 100 + number


def test_the_signals_that_no_process_sees_arrive(commands: Commands) -> None:
    with process(WAITING) as running:
        commands.pretend(running.pid)
        commands.alone.ok("kill", "c", "STOP")
        os.waitid(os.P_PID, running.pid, os.WSTOPPED)
        commands.alone.ok("kill", "c", "64")  # the last of the kernel's
        commands.alone.ok("kill", "c", "KILL")
        assert running.wait(10) == -9


def test_without_a_name_the_signal_is_term(commands: Commands) -> None:
    with process(TELLING) as running:
        commands.pretend(running.pid)
        commands.alone.ok("kill", "c")
        assert running.wait(10) == 115


@pytest.mark.parametrize("word", ["0", "65", "007", "99999999999999999999", "term", "RTMIN+1", "NONE", "", "-9", "1x"])
def test_other_words_for_signals_are_left_to_python(commands: Commands, word: str) -> None:
    with process(WAITING) as running:
        commands.pretend(running.pid)
        assert NEEDS_PYTHON in commands.alone("kill", "c", word).stderr
        assert running.poll() is None


@pytest.mark.parametrize(
    "options",
    [
        ("--log-format", "xml"),
        ("--log-format=",),
        ("--cgroup-manager=none",),
        ("--log", "/nowhere/log"),
        ("--root=/tmp/../tmp",),
        ("--root", "relative"),
        ("--debug",),
        ("--systemd-cgroup=true",),
        ("--rooted=/tmp",),
        ("-root", "/tmp"),
        ("--",),
        ("--root",),
    ],
)
def test_options_that_it_cannot_take_are_left_to_python(commands: Commands, options: tuple[str, ...]) -> None:
    with process(WAITING) as running:
        commands.pretend(running.pid)
        assert NEEDS_PYTHON in commands.alone(*options, "kill", "c", "KILL").stderr
        assert running.poll() is None


@pytest.mark.parametrize(
    "options",
    [
        ("--log-format", "json", "--cgroup-manager", "systemd"),
        ("--log-format=text", "--cgroup-manager=disabled", "--systemd-cgroup"),
        ("--log=", "--log-format=json"),
    ],
)
def test_options_that_change_nothing_are_taken(commands: Commands, options: tuple[str, ...]) -> None:
    with process(WAITING) as running:
        commands.pretend(running.pid)
        assert commands.alone.ok(*options, "state", "c") == commands.python.ok(*options, "state", "c")


@pytest.mark.parametrize(
    "words", [("delete", "c", "--force"), ("delete", "--force=true", "c"), ("kill", "--all", "c", "KILL"), ("state",)]
)
def test_other_forms_of_its_commands_are_left_to_python(commands: Commands, words: tuple[str, ...]) -> None:
    with process(WAITING) as running:
        commands.pretend(running.pid)
        assert NEEDS_PYTHON in commands.alone(*words).stderr
        assert running.poll() is None


@pytest.mark.parametrize("identity", ["", ".", "..", "../state/c", "c/", "c\n", "é", "x" * 256])
def test_what_is_no_name_of_a_container_is_left_to_python(commands: Commands, identity: str) -> None:
    commands.root.mkdir(mode=0o700)
    assert NEEDS_PYTHON in commands.alone("delete", "--force", identity).stderr


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("running", ("start", "c")),
        ("running", ("delete", "c")),
        ("stopped", ("start", "c")),
        ("stopped", ("kill", "c")),
        ("running", ("kill", "c", "NOTHING")),
        ("running", ("state", "nobody")),
        ("running", ("delete", "nobody")),
        ("running", ("delete", "--force", "nobody")),
        ("running", ("state", "c")),
        ("stopped", ("delete", "c")),
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_command_says_and_leaves_what_python_does(
    commands: Commands, public_tmp: Path, stage: str, words: tuple[str, ...], form: str
) -> None:
    seen = []
    for name in ("whole", "python"):
        with process(WAITING) as running:
            directory = commands.pretend(running.pid)
            if stage == "stopped":
                running.kill()
                running.wait()
            log = public_tmp / name
            done = getattr(commands, name)("--log", str(log), "--log-format", form, *words)
            said = done.stdout.replace(str(running.pid), "PID")
            seen.append(
                (done.returncode, said, done.stderr, in_any_moment(log.read_text()), log.stat().st_mode,
                 directory.exists(), running.poll())
            )  # fmt: skip
        commands.python("delete", "--force", "c")
    assert seen[0] == seen[1]


def test_a_process_that_was_killed_before_the_word_reached_it_has_not_started(commands: Commands) -> None:
    (commands.root / "c").mkdir(parents=True)
    path = str(commands.root / "s")
    with process(DEAF.format(path=path)) as running:
        (commands.root / "c").rmdir()
        commands.root.chmod(0o700)
        os.rename(path, commands.pretend(running.pid) / "start.sock")
        done = commands.whole("start", "c")
    assert done.returncode == 1
    assert "cannot start a container that has stopped" in done.stderr


@pytest.mark.parametrize("names", [("alone", "alone"), ("alone", "python"), ("python", "alone")])
def test_of_two_starts_at_once_one_starts(commands: Commands, bundle: Path, names: tuple[str, str]) -> None:
    commands.whole.ok("create", "--bundle", bundle, "c")
    null = subprocess.DEVNULL
    both = [subprocess.Popen([*getattr(commands, n).command, "start", "c"], stdout=null, stderr=null) for n in names]
    assert sorted(each.wait(20) for each in both) == [0, 1]
    assert commands.alone.status("c") == "running"


def test_processes_without_a_pid_namespace_are_found_in_their_group_by_python(
    commands: Commands, public_tmp: Path, rootfs: Path
) -> None:
    kinds = [{"type": kind} for kind in ("mount", "ipc", "uts", "network")]
    args = ("/bin/sh", "-c", "sleep 1000 & echo $! > /child; exec sleep 1000")
    bundle = write(public_tmp / "bundle", rootfs, args=args, namespaces=kinds, cgroupsPath=f"/{public_tmp.name}")
    commands.whole.ok("create", "--bundle", bundle, "c")
    commands.alone.ok("start", "c")
    while not (rootfs / "child").exists() or not (rootfs / "child").read_text().strip():
        assert commands.alone.status("c") == "running"
    child = int((rootfs / "child").read_text())
    groups = [line.partition(":")[2] for line in json.loads((commands.root / "c/state.json").read_text())["cgroups"]]
    assert NEEDS_PYTHON in commands.alone("delete", "--force", "c").stderr
    assert os.path.exists(f"/proc/{child}")
    commands.whole.ok("delete", "--force", "c")
    assert groups
    assert not [path for path in groups if os.path.exists(path)]
    assert (state.stat_of(child) or "X")[0] in "ZX"


def test_a_hook_that_follows_the_start_is_run_whatever_the_environment_says(
    commands: Commands, public_tmp: Path, bundle: Path
) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["hooks"] = {"poststart": [{"path": "/bin/touch", "args": ["touch", str(public_tmp / "ran")]}]}
    (bundle / "config.json").write_text(json.dumps(config))
    commands.whole.ok("create", "--bundle", bundle, "c")
    assert NEEDS_PYTHON in commands.alone("start", "c").stderr
    commands.whole.env = {**os.environ, "STOCKADE_RUNTIME_ANSWER": "0"}
    commands.whole.ok("start", "c")
    assert (public_tmp / "ran").exists()


@pytest.mark.parametrize("name", ["alone", "python"])
def test_closed_streams_take_nothing_of_ours(commands: Commands, bundle: Path, name: str) -> None:
    commands.whole.ok("create", "--bundle", bundle, "c")
    command = getattr(commands, name).command
    for words in (("start", "c"), ("state", "c"), ("kill", "c", "KILL"), ("delete", "--force", "c")):
        closed = f"exec {shlex.join([*command, *words])} <&- >&- 2>&-"
        assert subprocess.run(["sh", "-c", closed], check=False).returncode == 0


def test_a_reader_that_has_gone_is_told_as_python_tells_it(commands: Commands) -> None:
    codes = []
    with process(WAITING) as running:
        commands.pretend(running.pid)
        for command in (commands.whole.command, commands.python.command):
            reader, writer = os.pipe()
            os.close(reader)
            codes.append(subprocess.run([*command, "state", "c"], stdout=writer, check=False).returncode)
            os.close(writer)
    assert codes == [141, 141]


def test_a_full_disk_is_told_of(commands: Commands) -> None:
    with process(WAITING) as running, open("/dev/full", "wb") as full:
        commands.pretend(running.pid)
        done = subprocess.run([*commands.whole.command, "state", "c"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr


def test_the_root_of_a_user_is_below_their_runtime_directory(commands: Commands, public_tmp: Path) -> None:
    user = pwd.getpwnam("stockade-test")
    theirs = public_tmp / "theirs"
    (theirs / "stockade-runtime").mkdir(parents=True, mode=0o700)
    for path in (theirs, theirs / "stockade-runtime"):
        os.chown(path, user.pw_uid, user.pw_gid)
    become = ["setpriv", "--reuid", user.pw_name, "--regid", user.pw_name, "--init-groups"]
    words = [*become, commands.alone.command[0], "delete", "--force", "nobody"]

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, check=False, capture_output=True, text=True, env=environment)

    assert run(XDG_RUNTIME_DIR=str(theirs)).returncode == 0
    assert NEEDS_PYTHON in run(XDG_RUNTIME_DIR=str(public_tmp / "nowhere")).stderr
    assert NEEDS_PYTHON in run(XDG_RUNTIME_DIR="relative").stderr  # /run/user/UID, which isn't there


def test_a_state_with_much_in_it_is_told_whole(commands: Commands) -> None:
    with process(WAITING) as running:
        commands.pretend(running.pid, annotations={f"key{number}": "ü" * 100 for number in range(300)})
        assert commands.alone.ok("state", "c") == commands.python.ok("state", "c")
        commands.pretend(running.pid, "large", annotations={f"key{number}": "ü" * 100 for number in range(3000)})
        assert NEEDS_PYTHON in commands.alone("state", "large").stderr
        assert commands.whole.ok("state", "large") == commands.python.ok("state", "large")


def test_its_own_process_is_the_one_whose_start_is_written_down(commands: Commands) -> None:
    with process(WAITING) as running:
        commands.pretend(running.pid)
        assert pid_of(commands.alone) == running.pid
        text = (commands.root / "c/state.json").read_text()
        start = json.loads(text)["start"]
        (commands.root / "c/state.json").write_text(text.replace(f'"start":{start}', f'"start":{start + 1}'))
        assert commands.alone.status("c") == "stopped"
        commands.alone.ok("delete", "--force", "c")
        assert running.poll() is None


def test_it_works_where_python_is_not_even_installed(commands: Commands, public_tmp: Path) -> None:
    alone = Runtime(commands.root, env={})
    alone.command[:1] = commands.alone.command[:1]
    commands.root.mkdir(mode=0o700)
    alone.ok("delete", "--force", "nobody")
    assert sys.executable not in alone("list").stderr
    assert str(public_tmp / "alone/stockade") in alone("list").stderr
