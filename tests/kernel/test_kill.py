"""kill -9 at any moment: nothing of the payload lives a second later, and gc leaves nothing at all."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from stockade.sandbox import store
from tests.conftest import ROOT
from tests.kernel import arena

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.kernel
STOCKADE = [sys.executable, "-m", "stockade"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
#: ignores what can be ignored, and leaves a child in a session of its own
STUBBORN = "trap '' TERM HUP INT; (setsid sleep 1000 &) ; exec sleep 1000"
SANDBOX = f"""
from stockade import Sandbox
with Sandbox(memory=64 << 20) as limited, Sandbox() as plain:
    for _ in range(8):
        plain.run(["true"])
        limited.run(["true"])
    plain.run(["sh", "-c", {STUBBORN!r}])
"""
ROUNDS = 200
BATCH = 5


@dataclass(frozen=True)
class Kind:
    """A way to start something that must not survive."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    kills: tuple[str, ...] = ("supervisor", "group", "launcher", "both")


def kinds(user: pwd.struct_passwd) -> list[Kind]:
    def run(*options: str) -> list[str]:
        return [*STOCKADE, "run", *options, "--host", "--", "sh", "-c", STUBBORN]

    as_user = ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--init-groups", "--reset-env"]
    as_user += [
        "env",
        f"XDG_RUNTIME_DIR=/run/user/{user.pw_uid}",
        *(f"{name}={value}" for name, value in ENVIRONMENT.items()),
    ]
    return [
        Kind("plain", run("--rm"), ENVIRONMENT),
        Kind("limited", run("--init", "--memory", "64m", "--pids-limit", "50"), ENVIRONMENT),
        Kind("privileged", run("--mode", "privileged", "--name", f"n{random.randrange(10**9)}"), ENVIRONMENT),
        Kind("rootless", [*as_user, *run("--rm", "--init")], {}),
        # With supervisor and launcher gone at one instant nothing is left that could empty a group, until gc.
        Kind("host pids", run("--pid", "host", "--memory", "64m"), ENVIRONMENT, ("supervisor", "group", "launcher")),
        # The program itself goes on without its launcher: that one's end is tested in test_api.
        Kind("api", [sys.executable, "-c", SANDBOX], ENVIRONMENT, ("supervisor", "group", "both")),
    ]


def kill(process: subprocess.Popen[bytes], how: str) -> None:
    launcher = arena.launcher_of(process.pid)
    if how == "group":
        os.killpg(process.pid, signal.SIGKILL)
    if how in {"launcher", "both"} and launcher is not None:
        with suppress(ProcessLookupError):
            os.kill(launcher, signal.SIGKILL)
    if how in {"supervisor", "both"} or launcher is None:
        process.kill()


def start(kind: Kind) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return subprocess.Popen(
        kind.argv, env=kind.environment, stdin=null, stdout=null, stderr=null, start_new_session=True
    )


def collect(user: pwd.struct_passwd) -> None:
    for who in ([], ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--init-groups"]):
        runtime = {"XDG_RUNTIME_DIR": f"/run/user/{user.pw_uid}"} if who else {}
        done = subprocess.run(
            [*who, *STOCKADE, "gc"], env=ENVIRONMENT | runtime, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def rounds(user: pwd.struct_passwd) -> tuple[int, int]:
    """Kill at random; give how many had their program running by then, and how many did not."""
    before = arena.left()
    began = time.monotonic()
    subprocess.run([*STOCKADE, "run", "--rm", "--host", "--", "true"], env=ENVIRONMENT, check=True)
    launch = time.monotonic() - began
    running = 0
    for batch in range(ROUNDS // BATCH):
        started: list[tuple[float, Kind, str, subprocess.Popen[bytes]]] = []
        every = kinds(user)
        for number in range(BATCH):
            kind = every[(batch * BATCH + number) % len(every)]
            delay = random.uniform(0, launch * BATCH * (0.6 if batch % 2 else 1.5))
            started.append((time.monotonic() + delay, kind, random.choice(kind.kills), start(kind)))
        for due, _, how, process in sorted(started, key=lambda item: item[0]):
            time.sleep(max(0.0, due - time.monotonic()))
            children = {other.parent for other in arena.processes() if other.name == "sleep"}
            running += process.pid in children
            kill(process, how)
        alive = arena.survivors(1.0)
        assert alive == [], f"batch {batch}: {[(kind.name, how) for _, kind, how, _ in started]}"
        for _, _, _, process in started:
            process.wait()
        if batch % 8 == 7:
            collect(user)
            assert arena.left() == before
    return running, ROUNDS - running


def test_kill_9_at_200_random_moments_leaves_nothing_alive_and_gc_nothing_at_all(
    unprivileged: pwd.struct_passwd,
) -> None:
    running, launching = arena.run(lambda: rounds(unprivileged), uid=unprivileged.pw_uid)

    assert running > 2
    assert launching > 2


def test_the_search_finds_what_an_ordinary_program_leaves() -> None:
    """The weak set-up: what the tests above look for is there when nobody guards it."""

    def scenario() -> int:
        before = arena.left()
        argv = ["unshare", "--mount", "--fork", "sh", "-c", STUBBORN]
        with subprocess.Popen(argv, start_new_session=True) as process:
            while "sleep" not in {other.name for other in arena.processes()}:
                time.sleep(0.005)
            os.killpg(process.pid, signal.SIGKILL)
        alive = arena.survivors(0.5)
        after = arena.left()
        assert after.namespaces != before.namespaces
        return len(alive)

    assert arena.run(scenario) > 0


def deaf(body: str) -> list[str]:
    """A payload without its parent-death signal, which prctl(2) lets anyone clear."""
    clear = "import ctypes, os, time; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); "
    return ["python3", "-c", clear + body]


def killed(argv: list[str], *, without_launcher: bool = False, marks: int = 1) -> list[arena.Process]:
    """Kill a supervisor when `marks` processes called `sleep` run; give what lives a second later."""
    with subprocess.Popen([*STOCKADE, "run", *argv], env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while sum(other.name == "sleep" for other in arena.processes()) < marks:
            assert time.monotonic() < deadline, list(arena.processes())
            assert process.poll() is None
            time.sleep(0.005)
        if without_launcher:
            launcher = arena.launcher_of(process.pid)
            assert launcher is not None
            os.kill(launcher, signal.SIGSTOP)
        process.kill()
    return [survivor for survivor in arena.survivors(1.0) if survivor.name != "stockade-init"]


SLEEP = "os.execvp('sleep', ['sleep', '1000'])"
BOMB = "\nwhile True:\n    try:\n        os.fork() or " + SLEEP + "\n    except OSError: time.sleep(0.001)"


def test_a_payload_without_parent_death_signal_dies_with_its_supervisor() -> None:
    assert arena.run(lambda: killed(["--host", "--", *deaf(SLEEP)])) == []


def test_it_is_the_launcher_that_kills_it() -> None:
    """The weak set-up of the test above: the launcher is stopped."""
    alive = arena.run(lambda: killed(["--host", "--", *deaf(SLEEP)], without_launcher=True))

    assert [survivor.name for survivor in alive] == ["sleep"]


@pytest.mark.parametrize("bomb", [False, True])
def test_a_tree_without_pid_namespace_dies_with_its_supervisor(bomb: bool) -> None:  # noqa: FBT001
    script = deaf(BOMB) if bomb else ["sh", "-c", "(setsid sleep 1000 &) ; (setsid setsid sleep 1000 &) ; sleep 1000"]
    options = ["--pid", "host", "--pids-limit", "100", "--host", "--", *script]

    assert arena.run(lambda: killed(options, marks=50 if bomb else 3)) == []


def test_such_a_tree_dies_when_its_first_process_ends(stockade: Run) -> None:
    def scenario() -> list[arena.Process]:
        script = "(setsid sleep 1000 &) ; sleep 0.3"
        done = stockade("run", "--rm", "--pid", "host", "--host", "--", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        return arena.survivors(0)

    assert arena.run(scenario) == []


def test_gc_kills_what_the_deaths_of_supervisor_and_launcher_at_once_leave() -> None:
    def scenario() -> None:
        before = arena.left()
        argv = ["--pid", "host", "--host", "--", *deaf("os.fork() or os.setsid(); " + SLEEP)]
        assert killed(argv, without_launcher=True, marks=2) != []
        for process in arena.processes():
            if process.name == "stockade-init":
                os.kill(process.pid, signal.SIGKILL)
        subprocess.run([*STOCKADE, "gc"], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
        assert arena.survivors(1.0) == []
        assert arena.left() == before

    arena.run(scenario)


def memory_of(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def launches(counts: tuple[int, int]) -> None:
    """Launch through the API, plain and with limits, after a warm-up; nothing may be more afterwards than before."""
    from stockade import Sandbox
    from stockade.sandbox import api

    plain, limited = Sandbox(), Sandbox(memory=64 << 20, pids_limit=20)

    def repeat(sandbox: Sandbox, count: int) -> None:
        for _ in range(count):
            assert sandbox.run(["/bin/true"]).exit_code == 0

    repeat(plain, 50)
    repeat(limited, 20)
    plain.close()
    limited.close()
    assert api._launchers.current is not None
    launcher = api._launchers.current.pid
    before, memory = arena.left(), memory_of(launcher)
    descriptors = [len(os.listdir(f"/proc/{pid}/fd")) for pid in ("self", launcher)]
    keys = own_keys()
    repeat(plain, counts[0])
    repeat(limited, counts[1])
    plain.close()
    limited.close()
    assert arena.left() == before
    time.sleep(0.05)
    assert [len(os.listdir(f"/proc/{pid}/fd")) for pid in ("self", launcher)] == descriptors
    assert memory_of(launcher) <= memory + 64
    assert own_keys() <= keys + 200  # the kernel collects keyrings a little later, and others run containers too


def own_keys() -> int:
    with open("/proc/key-users") as file:
        return sum(int(line.split()[2].partition("/")[0]) for line in file)


def test_2000_launches_in_sequence_leave_nothing() -> None:
    arena.run(lambda: launches((1700, 300)))


def test_gc_leaves_alone_what_is_being_made_and_runs() -> None:
    """A record without a lock, or a group without processes, may be one that is just being made."""

    def scenario() -> None:
        before = arena.left()
        script = "while :; do " + " ".join(STOCKADE) + " gc; done"
        collector = subprocess.Popen(["sh", "-c", script], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        try:
            launch_while_gc_runs()
        finally:
            collector.kill()
        assert collector.communicate(timeout=20)[0] == ""
        assert arena.left() == before

    arena.run(scenario)


def launch_while_gc_runs() -> None:
    from stockade import Sandbox
    from stockade.sandbox import api

    with Sandbox(memory=64 << 20, ahead=0) as ours:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert ours.run(["true"]).exit_code == 0
    assert api._launchers.current is not None
    api._launchers.current.close()
    argv = [*STOCKADE, "run", "--rm", "--memory", "64m", "--name", "name", "--host", "--", "true"]
    for _ in range(10):
        done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_gc_does_not_look_at_a_record_while_one_is_being_made() -> None:
    """When nobody makes one any more, the same record without a lock is what a killed supervisor left."""

    def scenario() -> None:
        root = store._private(store.directory())
        record = f"{root}/{'a' * 64}"
        making = store._locked(root, fcntl.LOCK_SH)
        os.mkdir(record)
        with subprocess.Popen([*STOCKADE, "gc"], env=ENVIRONMENT, stdout=subprocess.DEVNULL) as collector:
            time.sleep(0.5)
            assert collector.poll() is None
            assert os.path.isdir(record)
            os.close(making)
            assert collector.wait(20) == 0
        assert not os.path.isdir(record)

    arena.run(scenario)
