"""The Python API as programs use it: threads, forks, limits, interrupts, other reapers. None leaves anything."""

from __future__ import annotations

import _thread
import errno
import gc
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from stockade import Sandbox
from stockade.errors import CannotExecute, ProgramNotFound, StockadeError
from stockade.sandbox import api, collect, launch, lifecycle
from tests.kernel import arena

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.kernel
MEBI = 1 << 20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as ours:
        yield ours


def shell(sandbox: Sandbox, script: str, **options: object) -> api.Result:
    return sandbox.run(["sh", "-c", script], **options)  # type: ignore[arg-type] # a word of its Literal


def launcher() -> int:
    assert api._launchers.current is not None
    return api._launchers.current.pid


# ---- what a run takes and gives


def test_a_result_tells_how_the_program_ended(sandbox: Sandbox) -> None:
    done = shell(sandbox, "echo out; echo err >&2; exit 7")
    assert (done.exit_code, done.signal, done.ended_by) == (7, 0, "exit")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert 0 < done.wall_time < 10
    assert 0 < done.cpu_time < 10
    assert MEBI // 4 < done.peak_memory < 64 * MEBI
    assert done.measured_by == "getrusage"
    assert (dict(done.enforced), dict(done.not_enforced)) == ({}, {})


def test_a_signal_is_told_from_an_exit_code(sandbox: Sandbox) -> None:
    crashed = sandbox.run(["python3", "-c", "import ctypes; ctypes.string_at(0)"])
    pretending = shell(sandbox, "exit 139")

    assert (crashed.exit_code, crashed.signal, crashed.ended_by) == (-1, signal.SIGSEGV, "signal")
    assert (pretending.exit_code, pretending.signal, pretending.ended_by) == (139, 0, "exit")


@pytest.mark.parametrize("data", [b"", b"word\n", b"x" * 5_000_000])
def test_input_comes_whole_and_ends(sandbox: Sandbox, data: bytes) -> None:
    assert shell(sandbox, "cat; cat /proc/self/fd/0 | wc -c >&2", input=data).stdout == data


def test_input_may_be_text_and_is_not_shared_between_runs(sandbox: Sandbox) -> None:
    assert shell(sandbox, "cat", input="ä").stdout == "ä".encode()
    assert shell(sandbox, "cat").stdout == b""


def test_env_adds_to_the_sandboxs_own_and_replaces_it() -> None:
    with Sandbox(env=(("A", "1"), ("B", "2"))) as ours:
        done = shell(ours, 'echo "$A $B $C"', env={"B": "3", "C": "4"})
        after = shell(ours, 'echo "$A $B $C"')

    assert done.stdout == b"1 3 4\n"
    assert after.stdout == b"1 2 \n"


def test_nothing_of_our_environment_or_descriptors_gets_in(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_inheritable(descriptor, True)

    done = shell(sandbox, "env; ls /proc/self/fd")

    os.close(reader)
    os.close(writer)
    assert b"SECRET" not in done.stdout
    assert done.stdout.split()[-4:] == [b"0", b"1", b"2", b"3"]  # 3 is ls's own, of the directory


def test_the_tree_is_dead_at_its_deadline() -> None:
    def scenario() -> None:
        with Sandbox() as ours:
            began = time.monotonic()
            done = shell(ours, "trap '' TERM INT HUP; (setsid sleep 1000 &); echo up; while :; do :; done", timeout=0.4)
            assert time.monotonic() - began < 3
            assert (done.ended_by, done.signal, done.stdout) == ("timeout", signal.SIGKILL, b"up\n")
            assert 0.35 < done.wall_time < 3
            assert [process for process in arena.processes() if process.name == "sleep"] == []

    arena.run(scenario)


def test_the_sandboxs_own_timeout_holds_where_a_run_names_none() -> None:
    with Sandbox(timeout=0.3) as ours:
        assert shell(ours, "sleep 60").ended_by == "timeout"
        assert shell(ours, "sleep 0.5", timeout=20).ended_by == "exit"


def test_output_beyond_the_limit_ends_the_program(sandbox: Sandbox) -> None:
    endless = shell(sandbox, "yes", output_limit=100_000)
    on_stderr = shell(sandbox, "yes >&2", output_limit=100_000)
    exact = shell(sandbox, "head -c 100000 /dev/zero", output_limit=100_000)

    assert (endless.ended_by, endless.signal) == ("output-limit", signal.SIGKILL)
    assert 100_000 < len(endless.stdout) <= 100_000 + collect.CHUNK
    assert on_stderr.ended_by == "output-limit"
    assert (exact.ended_by, len(exact.stdout)) == ("exit", 100_000)


def test_a_child_that_keeps_the_pipe_open_does_not_hold_up_the_result(sandbox: Sandbox) -> None:
    began = time.monotonic()

    done = shell(sandbox, "echo first; (sleep 30; echo late) &")

    assert done.stdout == b"first\n"
    assert time.monotonic() - began < 10


# ---- what goes wrong


def test_errors_are_exceptions_and_leave_the_sandbox_usable(sandbox: Sandbox) -> None:
    for argv, kind in ((["nosuch"], ProgramNotFound), (["/etc/passwd"], CannotExecute), ([], StockadeError)):
        with pytest.raises(kind):
            sandbox.run(argv)
    with pytest.raises(StockadeError, match="NUL"):
        sandbox.run(["true", "a\0b"])
    with pytest.raises(StockadeError):
        sandbox.run(["true"], env={"A=B": "1"})

    assert sandbox.run(["true"]).exit_code == 0


def test_what_cannot_be_had_is_said_before_anything_runs() -> None:
    with pytest.raises(StockadeError):
        Sandbox(rootfs="/nowhere/at/all")
    with pytest.raises(StockadeError):
        Sandbox(cap_add=("CAP_NONE_SUCH",))
    with pytest.raises(TypeError):
        Sandbox(nonsense=1)
    with pytest.raises(TypeError):
        Sandbox(argv=("true",))


def test_a_sandbox_can_be_used_after_close_and_closed_twice() -> None:
    ours = Sandbox()
    for _ in range(3):
        assert ours.run(["true"]).exit_code == 0
        ours.close()
        ours.close()


def test_a_program_that_is_dropped_ends_what_is_ready() -> None:
    def scenario() -> None:
        ours = Sandbox(memory=64 * MEBI)
        for _ in range(4):
            ours.run(["true"])
        assert len(ours._ready) > 0
        assert arena.groups_below(list(arena.own_groups().values()))
        del ours
        gc.collect()
        left = arena.left()
        assert left.processes == ["stockade-init S"]
        assert (left.groups, left.records) == ([], [])

    arena.run(scenario)


def test_single_calls_find_a_process_that_stands_ready_as_loops_do() -> None:
    with Sandbox() as ours:
        ours.run(["true"])
        for pause in (0.0, 0.0, 5 * api.CLOSE, 5 * api.CLOSE, 0.0, 5 * api.CLOSE):
            first = ours._ready[0] if ours._ready else None
            time.sleep(pause)
            assert ours.run(["true"]).exit_code == 0
            assert first is None or first not in ours._ready  # it was taken
            assert len(ours._ready) == api.AHEAD


@pytest.mark.parametrize("pause", [0.0, 5 * api.CLOSE])
@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many open files"), StockadeError("no more")])
def test_a_run_gives_its_result_when_nothing_more_can_be_made_ready(
    monkeypatch: pytest.MonkeyPatch, pause: float, error: Exception
) -> None:
    def refuse() -> object:
        raise error

    with Sandbox() as ours:
        for _ in range(2):
            ours.run(["true"])
        monkeypatch.setattr(ours, "_begin", refuse)
        for _ in range(api.AHEAD):
            time.sleep(pause)
            assert ours.run(["echo", "there"]).stdout == b"there\n"
        with pytest.raises(type(error)):
            ours.run(["true"])


def test_a_program_that_is_not_there_costs_none_of_those_that_stand_ready() -> None:
    with Sandbox() as ours:
        for _ in range(3):
            ours.run(["true"])
        for _ in range(3):
            with pytest.raises(ProgramNotFound):
                ours.run(["/nonexistent"])
            assert len(ours._ready) == api.AHEAD
        assert ours.run(["true"]).exit_code == 0


def test_a_run_goes_on_when_what_was_ready_has_been_killed() -> None:
    def scenario() -> None:
        with Sandbox() as ours:
            for _ in range(4):
                ours.run(["true"])
            # Again and again: the launcher may be about to make what it was asked for last.
            while living := [p.pid for p in arena.processes() if p.pid != launcher() and p.state != "Z"]:
                for pid in living:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.005)
            assert ours.run(["true"]).exit_code == 0

    arena.run(scenario)


def test_the_death_of_the_launcher_ends_the_run_and_not_the_sandbox() -> None:
    def scenario() -> None:
        with Sandbox() as ours:
            for _ in range(3):
                ours.run(["true"])
            threading.Timer(0.2, lambda: os.kill(launcher(), signal.SIGKILL)).start()
            done = ours.run(["sleep", "60"])
            assert (done.ended_by, done.signal) == ("launcher", signal.SIGKILL)
            assert ours.run(["true"]).exit_code == 0
        assert arena.left().processes == ["stockade-init S"]

    arena.run(scenario)


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_that_has_passed_already_is_refused(timeout: float) -> None:
    with Sandbox() as ours, pytest.raises(ValueError, match="timeout is"):
        ours.run(["true"], timeout=timeout)


def test_an_interrupt_at_any_moment_leaves_nothing() -> None:
    def scenario() -> None:
        plain, limited = Sandbox(), Sandbox(memory=64 * MEBI)
        for ours in (plain, limited):
            ours.run(["true"])
            ours.run(["true"])
            ours.close()
        before, descriptors = arena.left(), len(os.listdir("/proc/self/fd"))
        interrupted = 0
        for number in range(150):
            timer = threading.Timer(random.uniform(0, 0.02), _thread.interrupt_main)
            try:
                try:
                    timer.start()
                    for _ in range(10):
                        shell(limited if number % 3 == 0 else plain, "(setsid sleep 1000 &) ; sleep 0.003")
                except KeyboardInterrupt:
                    interrupted += 1
                timer.join()
                time.sleep(0.001)
            except KeyboardInterrupt:
                timer.join()  # it came between two lines of ours
        for ours in (plain, limited):
            ours.close()
        gc.collect()
        assert interrupted > 50
        assert arena.left() == before
        # An interrupt between pipe2(2) and the next line can't be undone by anyone.
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 12

    arena.run(scenario)


# ---- threads, forks, other reapers


@pytest.mark.parametrize("limits", [{}, {"memory": 64 * MEBI, "pids_limit": 20}])
def test_one_sandbox_serves_eight_threads(limits: dict[str, int]) -> None:
    def scenario() -> None:
        with Sandbox(**limits) as ours:
            ours.run(["true"])

            def work(thread: int) -> list[bytes]:
                runs = 50 if not limits else 12
                return [shell(ours, f"cat; echo {thread}-{n}", input=f"{thread * n} ").stdout for n in range(runs)]

            with ThreadPoolExecutor(8) as pool:
                for thread, outputs in enumerate(pool.map(work, range(8))):
                    assert outputs == [f"{thread * n} {thread}-{n}\n".encode() for n in range(len(outputs))]
            launchers = [process for process in arena.processes() if process.name == "stockade-init"]
            assert sum(process.pid == launcher() for process in launchers) == 1
        left = arena.left()
        assert (left.processes, left.groups, left.records) == (["stockade-init S"], [], [])

    arena.run(scenario)


def test_the_thread_that_ran_first_may_end_while_others_go_on() -> None:
    """The parent-death signal comes at the end of the thread that made the child, prctl(2)."""

    def scenario() -> None:
        ours = Sandbox()
        first = threading.Thread(target=lambda: ours.run(["true"]))
        first.start()
        first.join()
        results = []
        second = threading.Thread(target=lambda: results.append(shell(ours, "sleep 0.3; echo done")))
        second.start()
        third = threading.Thread(target=lambda: ours.run(["true"]))
        third.start()
        third.join()
        second.join()
        assert [result.stdout for result in results] == [b"done\n"]
        ours.close()

    arena.run(scenario)


def in_a_fork(function: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_of_the_program_has_its_own_launcher_and_leaves_the_parents_alone() -> None:
    def scenario() -> None:
        ours = Sandbox(memory=64 * MEBI)
        for _ in range(4):
            ours.run(["true"])
        parents, ready = launcher(), [ready.pending.pid for ready in ours._ready]
        groups, records = arena.groups_below(list(arena.own_groups().values())), arena.left().records
        assert ready
        assert groups
        assert records

        def in_child() -> None:
            for _ in range(3):
                assert shell(ours, "echo child").stdout == b"child\n"
            assert launcher() != parents
            ours.close()
            gc.collect()

        in_a_fork(in_child)
        assert launcher() == parents
        assert arena.groups_below(list(arena.own_groups().values())) == groups
        assert arena.left().records == records
        assert all(ready.pending.pidfd < 0 or not launch.readable(ready.pending.pidfd) for ready in ours._ready)
        assert shell(ours, "echo parent").stdout == b"parent\n"
        ours.close()

    arena.run(scenario)


def test_a_fork_that_lives_on_keeps_no_guard_of_its_parent_from_seeing_the_end() -> None:
    """A copy of the launcher's socket or of the record's lock in the fork would look like a living supervisor."""

    def program(ready: int) -> None:
        ours = Sandbox(pids_limit=20)
        ours.run(["true"])
        ours.run(["true"])  # from the second run on others stand ready
        deaf = "import ctypes, os; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); os.execvp('sleep', ['sleep', '1000'])"
        thread = threading.Thread(target=lambda: ours.run(["python3", "-c", deaf]))
        thread.start()
        while not any(process.name == "sleep" for process in arena.processes()):
            time.sleep(0.005)
        if os.fork() == 0:
            os.write(ready, b"x")
            time.sleep(1000)
        thread.join()

    def scenario() -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                program(writer)
            os._exit(1)
        assert os.read(reader, 1) == b"x"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        deadline = time.monotonic() + 1
        while sum(process.lives for process in arena.processes()) > 1 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert [process.name for process in arena.processes() if process.lives] != []  # the fork itself
        assert not any(process.name in {"sleep", "stockade-init"} for process in arena.processes() if process.lives)
        lifecycle.gc()
        assert (arena.left().groups, arena.left().records) == ([], [])

    arena.run(scenario)


def one_run() -> bytes:
    with Sandbox() as ours:
        return shell(ours, "echo from-a-worker").stdout


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_may_use_it(method: str) -> None:
    assert one_run() == b"from-a-worker\n"
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(one_run, [()] * 4) == [b"from-a-worker\n"] * 4
        pool.close()
        pool.join()


def test_a_program_that_waits_for_any_child_loses_no_exit_code() -> None:
    def scenario() -> None:
        stop = threading.Event()

        def reaper() -> None:
            while not stop.is_set():
                with suppress(ChildProcessError):
                    os.waitpid(-1, os.WNOHANG)
                time.sleep(0)

        thread = threading.Thread(target=reaper)
        thread.start()
        try:
            with Sandbox() as ours:
                results = [shell(ours, f"exit {n}") for n in range(60)]
                results.append(shell(ours, "sleep 60", timeout=0.2))
        finally:
            stop.set()
            thread.join()
        assert [result.exit_code for result in results] == [*range(60), -1]
        assert results[-1].ended_by == "timeout"
        assert any(result.measured_by == "nothing" for result in results)  # the reaper did get some

    arena.run(scenario)


def test_a_program_that_ignores_sigchld_loses_no_exit_code() -> None:
    def scenario() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with Sandbox(memory=64 * MEBI) as ours:
            assert [shell(ours, f"exit {n}").exit_code for n in range(5)] == [0, 1, 2, 3, 4]
            assert shell(ours, "exit 3").measured_by == "cgroup"

    arena.run(scenario)


@pytest.mark.parametrize("limits", [{}, {"memory": 64 * MEBI}])
def test_300_runs_leave_no_descriptor_open(limits: dict[str, int]) -> None:
    def scenario() -> None:
        with Sandbox(**limits) as ours:

            def once() -> None:
                shell(ours, "echo x; exit 1", input="y", output_limit=10, timeout=30)
                with suppress(StockadeError):
                    ours.run(["nosuch"])
                shell(ours, "yes", output_limit=10)

            for _ in range(3):
                once()
            ours.close()
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(100 if not limits else 25):
                once()
            ours.close()
            assert len(os.listdir("/proc/self/fd")) == before

    arena.run(scenario)


# ---- limits, and without root


def test_limits_hold_are_named_and_told_apart() -> None:
    hog = "x = bytearray(200 << 20); print(len(x))"
    with Sandbox(memory=32 * MEBI, pids_limit=16) as ours:
        hungry = ours.run(["python3", "-c", hog])
        modest = ours.run(["python3", "-c", "x = bytearray(12 << 20)"])
        survivor = shell(ours, f"python3 -c '{hog}' 2>/dev/null; exit 0")

    assert (hungry.ended_by, hungry.signal) == ("out-of-memory", signal.SIGKILL)
    assert hungry.peak_memory == pytest.approx(32 * MEBI, rel=0.02)
    assert modest.ended_by == "exit"
    assert 12 * MEBI < modest.peak_memory < 32 * MEBI
    assert modest.measured_by == "cgroup"
    assert set(modest.enforced) >= {"memory", "pids-limit"}
    assert (survivor.ended_by, survivor.exit_code) == ("exit", 0)


def test_the_weak_set_up_without_limits_lets_the_hog_have_its_memory(sandbox: Sandbox) -> None:
    done = sandbox.run(["python3", "-c", "x = bytearray(200 << 20); print(len(x))"])

    assert (done.ended_by, done.stdout) == ("exit", b"209715200\n")
    assert done.peak_memory > 200 * MEBI


SCRIPT = """
import os, sys, threading
from stockade import Sandbox, StockadeError
with Sandbox() as ours:
    done = ours.run(["sh", "-c", "id -u; cat; grep CapEff /proc/self/status; echo err >/dev/stderr"], input="in\\n")
    print(done.stdout.decode().split(), done.stderr, done.exit_code)
    results = []
    threads = [threading.Thread(target=lambda: results.append(ours.run(["true"]).exit_code)) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(results, ours.run(["sleep", "60"], timeout=0.2).ended_by)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20): ours.run(["true"], input="x")
    ours.close()
    print(len(os.listdir("/proc/self/fd")) <= before)
try:
    Sandbox(memory=1 << 26).run(["true"])
except StockadeError as error:
    print(error)
"""


def test_a_user_without_privilege_has_the_same_api(as_user: Run) -> None:
    done = as_user([sys.executable, "-c", SCRIPT])

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "['0', 'in', 'CapEff:', '0000000000000000'] b'err\\n' 0"
    assert lines[1] == "[0, 0, 0, 0, 0, 0, 0, 0] timeout"
    assert lines[2] == "True"
    assert lines[3].startswith("memory can't be enforced")
