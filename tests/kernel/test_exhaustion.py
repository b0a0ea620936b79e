"""What a payload may use up, and what stops it: each limit holds for the whole tree and is told apart in the end.

Every limit's test has beside it the same program without the limit, which then gets what it asks for.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from stockade import Sandbox
from tests.kernel import arena

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from stockade.sandbox.api import Result

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.kernel
MEBI = 1 << 20
STOCKADE = [sys.executable, "-m", "stockade"]
#: programs that take 150 MiB, or fail
HOGS = {
    "anonymous memory": "x = bytearray(150 << 20)",
    "a memfd": "fd = os.memfd_create('x')\nfor _ in range(150): os.write(fd, bytes(1 << 20))",
    "a tmpfs of its own": "f = open('/scratch/x', 'wb', 0)\nfor _ in range(150): f.write(bytes(1 << 20))",
    "the root's tmpfs": "f = open('/tmp/x', 'wb', 0)\nfor _ in range(150): f.write(bytes(1 << 20))",
    "shared memory": "f = open('/dev/shm/x', 'wb', 0)\nfor _ in range(150): f.write(bytes(1 << 20))",
    # 4 KiB of data and 4 KiB of page table in each of so many 2 MiB of address space; the data alone would fit
    "page tables": (
        "m = mmap.mmap(-1, 40 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\n"
        "m.madvise(15)\n"  # MADV_NOHUGEPAGE
        "for n in range(0, 38000 if limit is None else 10 * limit // 12288, 1): m[n << 20] = 1"
    ),
    "many processes": (
        "for _ in range(5):\n    if os.fork() == 0:\n        x = bytearray(30 << 20); time.sleep(1); os._exit(0)\n"
        "for _ in range(5):\n    status = os.wait()[1]\n    if status: os._exit(1)"
    ),
}


def python(sandbox: Sandbox, program: str, **options: Any) -> Result:
    return sandbox.run(["python3", "-c", f"import mmap, os, time\n{program}\nprint('had it')"], **options)


@pytest.mark.parametrize("hog", HOGS)
def test_memory_of_every_kind_is_limited(hog: str) -> None:
    limit = 48 * MEBI
    program = f"limit = {limit}\n{HOGS[hog]}"
    with Sandbox(memory=limit, memory_swap=limit, shm_size=400 * MEBI, tmpfs=scratch(), ahead=0) as ours:
        done = python(ours, program, timeout=60)

    assert (done.ended_by, done.stdout) == ("out-of-memory", b"")
    assert (done.signal, done.exit_code) == ((0, 1) if hog == "many processes" else (signal.SIGKILL, -1))
    assert done.measured_by == "cgroup"
    assert done.peak_memory == pytest.approx(limit, rel=0.03)
    assert done.enforced["memory"].endswith(("memory.limit_in_bytes", "memory.max"))


@pytest.mark.parametrize("hog", HOGS)
def test_the_weak_set_up_of_memory_gives_it(hog: str) -> None:
    limit = "None" if hog == "page tables" else "0"
    with Sandbox(memory=1024 * MEBI, shm_size=400 * MEBI, tmpfs=scratch(), ahead=0) as ours:
        done = python(ours, f"limit = {limit}\n{HOGS[hog]}", timeout=60)

    assert (done.ended_by, done.stdout) == ("exit", b"had it\n"), done.stderr
    assert done.peak_memory > 140 * MEBI


def scratch() -> tuple[Any, ...]:
    from stockade.sandbox.request import MountRequest

    return (MountRequest("tmpfs", "tmpfs", "/scratch", options=("size=400m",)),)


BOMB = """
import sys
count = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(1000)
            os._exit(0)
        count += 1
    except OSError:
        break
    if count == 300: break
print(count, flush=True)
"""


def test_processes_are_limited_and_all_end_with_the_first() -> None:
    def scenario() -> None:
        with Sandbox(pids_limit=40, ahead=0) as ours:
            done = python(ours, BOMB, timeout=30)
        assert int(done.stdout.split()[0]) == 39, done
        assert done.ended_by == "exit"
        assert [process for process in arena.processes() if process.lives and process.name != "stockade-init"] == []

    arena.run(scenario)


def test_a_fork_bomb_that_never_ends_is_dead_at_its_deadline() -> None:
    def scenario() -> None:
        with Sandbox(pids_limit=60, ahead=0) as ours:
            began = time.monotonic()
            done = python(ours, "while True:\n    try: os.fork()\n    except OSError: pass", timeout=0.7)
            assert done.ended_by == "timeout"
            assert time.monotonic() - began < 4
        assert arena.left().processes == ["stockade-init S"]

    arena.run(scenario)


def test_the_weak_set_up_of_processes_lets_them_all_in() -> None:
    with Sandbox(ahead=0) as ours:
        assert python(ours, BOMB, timeout=30).stdout.split()[0] == b"300"


OPEN = """
held = []
try:
    while len(held) < 500: held.append(os.open('/dev/null', 0))
except OSError as error:
    print(error.errno)
print(len(held))
"""


def test_descriptors_are_limited() -> None:
    from stockade.sandbox.request import UlimitRequest

    with Sandbox(ulimits=(UlimitRequest("nofile", 64, 64),)) as limited, Sandbox() as free:
        done, weak = python(limited, OPEN), python(free, OPEN)

    assert done.stdout.split()[:2] == [b"24", b"61"]
    assert weak.stdout.split()[0] == b"500"


SPIN = """
for _ in range(3):
    if os.fork() == 0: break
end = time.monotonic() + 1.2
while time.monotonic() < end: pass
"""


def test_processor_time_is_limited_for_all_processes_together() -> None:
    # Some of a period more can be used: what is left of the first, and slices that a CPU has taken already.
    with Sandbox(cpus=0.25, pids_limit=20, ahead=0) as limited, Sandbox(pids_limit=20, memory=512 * MEBI) as free:
        done, weak = python(limited, SPIN, timeout=30), python(free, SPIN, timeout=30)

    assert done.cpu_time / done.wall_time < 0.25 * 1.5
    assert weak.cpu_time / weak.wall_time > 0.5
    assert done.enforced["cpus"]


FILL = """
import sys
path, unit, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
count = 0
try:
    for count in range(most):
        with open(f'{path}/{count}', 'wb', 0) as file: file.write(bytes(unit))
except OSError as error:
    print(error.errno, count)
else:
    print(0, count + 1)
"""


def fill(sandbox: Sandbox, path: str, unit: int, most: int) -> list[int]:
    done = sandbox.run(["python3", "-c", f"import os\n{FILL}", path, str(unit), str(most)], timeout=60)
    return [int(word) for word in done.stdout.split()]


def small_root(directory: Any) -> str:
    """Give a mode that differs from normal by a root of 16 MiB."""
    source = os.path.join(os.path.dirname(__file__), "../../profiles/modes/normal.toml")
    with open(source, encoding="utf-8") as file:
        text = file.read()
    path = os.path.join(directory, "small.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace('root_size = "1g"', 'root_size = "16m"'))
    return path


def test_files_on_the_root_of_the_host_mode_are_limited_in_bytes_and_number(tmp_path: Any) -> None:
    with Sandbox(mode=small_root(tmp_path), memory=256 * MEBI) as ours:
        for path in ("/tmp", "/root", "/var/tmp", "/run"):
            error, count = fill(ours, path, MEBI, 40)
            assert (error, 12 <= count <= 16) == (28, True), path
        error, count = fill(ours, "/tmp", 0, 8000)
        assert (error, 3900 < count < 4096) == (28, True)


@pytest.mark.parametrize("path", ["/dev/shm", "/tmp", "/scratch"])
def test_every_tmpfs_is_limited_in_bytes_and_number(path: str) -> None:
    from stockade.sandbox.request import MountRequest

    tmpfs = (MountRequest("tmpfs", "tmpfs", "/scratch"),)
    with Sandbox(read_only=True, tmpfs=tmpfs, shm_size=8 * MEBI) as ours:
        done = ours.run(["sh", "-c", f"stat -f -c '%b %S %c' {path}"])
    blocks, size, files = (int(word) for word in done.stdout.split())

    assert blocks * size <= 1 << 30
    assert files <= 1 << 18


def test_shared_memory_has_its_size() -> None:
    with Sandbox(shm_size=8 * MEBI) as small, Sandbox(shm_size=100 * MEBI) as large:
        assert fill(small, "/dev/shm", MEBI, 20) == [28, 8]
        assert fill(large, "/dev/shm", MEBI, 20) == [0, 20]


STUBBORN = (
    "trap '' TERM INT HUP QUIT; (setsid setsid sleep 1000 &) ; (sleep 1000 &) ; echo up; while :; do sleep 1000; done"
)


@pytest.mark.parametrize("options", [(), ("--init",), ("--pid", "host"), ("--memory", "64m")])
def test_what_ignores_signals_and_hides_in_sessions_is_dead_at_the_deadline(
    stockade: Run, options: tuple[str, ...]
) -> None:
    def scenario() -> None:
        done = stockade("run", "--rm", *options, "--json", "--timeout", "0.5", "--host", "--", "sh", "-c", STUBBORN)
        assert done.stdout == "up\n"
        assert done.returncode == 137
        assert json.loads(done.stderr.splitlines()[-1])["ended_by"] == "timeout"
        assert arena.survivors(0) == []

    arena.run(scenario)


def ended(stockade: Run, *arguments: str) -> dict[str, Any]:
    done = stockade("run", "--rm", "--json", *arguments)
    report: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    assert report["exit_code"] == done.returncode
    return report


def test_one_exit_code_has_three_reasons_that_the_report_tells_apart(stockade: Run) -> None:
    shell = ("--host", "--", "python3", "-c")
    oom = ended(stockade, "--memory", "32m", *shell, "x = bytearray(200 << 20)")
    timeout = ended(stockade, "--timeout", "0.4", *shell, "import time; time.sleep(60)")
    # process 1 of a PID namespace ignores its own SIGKILL, so init is the first
    own = ended(stockade, "--init", *shell, "import os; os.kill(os.getpid(), 9)")
    pretending = ended(stockade, "--memory", "64m", *shell, "raise SystemExit(137)")

    assert {report["exit_code"] for report in (oom, timeout, own, pretending)} == {137}
    assert oom["ended_by"] == "out-of-memory"
    assert oom["used"]["oom_kills"] >= 1
    assert timeout["ended_by"] == "timeout"
    assert pretending["ended_by"] == "exit"
    assert own["ended_by"] in {"exit", "signal 9"}


def test_a_peak_of_memory_is_that_of_the_whole_tree(stockade: Run) -> None:
    three = "import os, time\nfor _ in range(2): os.fork()\nx = bytearray(20 << 20); time.sleep(0.5)"
    tree = ended(stockade, "--memory", "256m", "--host", "--", "python3", "-c", three)["used"]
    largest = ended(stockade, "--host", "--", "python3", "-c", three)["used"]

    assert 80 * MEBI < tree["peak_memory"] < 140 * MEBI
    assert tree["peak_memory_from"] == "cgroup"
    assert 20 * MEBI < largest["peak_memory"] < 60 * MEBI
    assert largest["peak_memory_from"] == "getrusage"
