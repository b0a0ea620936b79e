"""Hooks on the host's side: what they get, how they fail, and that nobody waits for what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from stockade.errors import StockadeError
from stockade.sandbox.oci.spec import Hook
from stockade.sandbox.runtime import hooks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

STATE = b'{"id":"box","status":"creating","pid":42}'


def shell(script: str, *, timeout: int | None = None, env: tuple[str, ...] = ()) -> Hook:
    return Hook("/bin/sh", ("sh", "-c", script), env, timeout)


def test_a_hook_reads_the_whole_state_on_its_standard_input(tmp_path: Path) -> None:
    state = STATE + b" " * 300_000

    hooks.run_hooks((shell(f"cat > {tmp_path}/state"),), state, "createRuntime")

    assert (tmp_path / "state").read_bytes() == state


def test_a_hook_has_the_arguments_and_the_environment_that_were_given_and_no_others(tmp_path: Path) -> None:
    script = f"cat /proc/$$/cmdline > {tmp_path}/argv; cat /proc/$$/environ > {tmp_path}/environ"
    hook = Hook("/bin/sh", ("another name", "-c", script, "last"), ("A=1", "B=x=y", "C="))

    hooks.run_hooks((hook,), STATE, "createRuntime")

    assert (tmp_path / "argv").read_bytes() == f"another name\0-c\0{script}\0last\0".encode()
    assert (tmp_path / "environ").read_bytes() == b"A=1\0B=x=y\0C=\0"


def test_argv_0_is_the_path_where_no_arguments_were_given(tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text(f'#!/bin/sh\necho "$0 $#" > {tmp_path}/said\n')
    script.chmod(0o755)

    hooks.run_hooks((Hook(str(script)),), STATE, "createRuntime")

    assert (tmp_path / "said").read_text() == f"{script} 0\n"


def test_no_descriptor_of_the_caller_reaches_a_hook(tmp_path: Path) -> None:
    open_to_all = os.dup(0)
    os.set_inheritable(open_to_all, True)
    try:
        hooks.run_hooks((shell(f"ls /proc/self/fd > {tmp_path}/fds"),), STATE, "createRuntime")
    finally:
        os.close(open_to_all)

    assert (tmp_path / "fds").read_text().split() == ["0", "1", "2", "3"]  # 3 is the listing's own


def test_hooks_run_in_their_order_and_the_first_failure_is_the_last_that_runs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    three = (shell(f"echo 1 >> {log}"), shell(f"echo 2 >> {log}; exit 3"), shell(f"echo 3 >> {log}"))

    with pytest.raises(StockadeError, match=r"^error running createRuntime hook #1: /bin/sh: exit status 3$"):
        hooks.run_hooks(three, STATE, "createRuntime")

    assert log.read_text() == "1\n2\n"


def test_what_a_hook_said_is_told_on_one_line() -> None:
    with pytest.raises(StockadeError) as caught:
        hooks.run_hooks((shell("echo out; echo no such network >&2; exit 1"),), STATE, "prestart")

    assert caught.value.message == "error running prestart hook #0: /bin/sh: exit status 1: out no such network"


@pytest.mark.parametrize("when", ["poststart", "poststop"])
def test_after_the_start_a_failure_is_a_warning_and_the_next_hook_runs(tmp_path: Path, when: str) -> None:
    warnings: list[str] = []

    hooks.run_hooks((shell("exit 7"), shell(f"touch {tmp_path}/ran")), STATE, when, warnings.append)

    assert warnings == [f"error running {when} hook #0: /bin/sh: exit status 7"]
    assert (tmp_path / "ran").exists()


def test_a_hook_that_is_not_there_or_is_no_program_says_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")

    with pytest.raises(StockadeError, match="/nonexistent: can't be executed: No such file or directory"):
        hooks.run_hooks((Hook("/nonexistent"),), STATE, "createRuntime")
    with pytest.raises(StockadeError, match="can't be executed: Permission denied"):
        hooks.run_hooks((Hook(str(tmp_path / "text")),), STATE, "createRuntime")


def test_a_hook_that_was_killed_says_by_what() -> None:
    with pytest.raises(StockadeError, match="killed by signal 9"):
        hooks.run_hooks((shell("kill -9 $$"),), STATE, "createRuntime")


def test_a_hook_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()

    with pytest.raises(StockadeError, match="timed out and was killed"):
        hooks.run_hooks((shell(f"sleep 1000 & echo $! > {tmp_path}/pid; wait", timeout=1),), STATE, "createRuntime")

    assert 0.9 < time.monotonic() - began < 10
    assert _gone(int((tmp_path / "pid").read_text()))


def _gone(pid: int) -> bool:
    """Tell whether a process has ended or is about to: killed, and waiting for its new parent."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_nobody_waits_for_a_process_that_a_hook_leaves_with_its_streams(tmp_path: Path) -> None:
    began = time.monotonic()

    hooks.run_hooks((shell(f"sleep 1000 & echo $! > {tmp_path}/pid", timeout=60),), STATE, "createRuntime")

    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert time.monotonic() - began < 10


def test_a_hook_that_neither_reads_nor_stops_talking_is_not_waited_for() -> None:
    hooks.run_hooks((shell("exec 0<&-; head -c 1000000 /dev/zero"),), STATE + b" " * 1_000_000, "createRuntime")


def test_a_hook_leads_a_session_and_has_no_signal_ignored(
    forked: Callable[[Callable[[], Any]], Any], tmp_path: Path
) -> None:
    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        hooks.run_hooks((shell(f"cat /proc/$$/stat /proc/$$/status > {tmp_path}/seen"),), STATE, "createRuntime")

    forked(run)

    seen = (tmp_path / "seen").read_text()
    pid, session = seen.split()[0], seen.split(")")[1].split()[3]
    masks = {line[:6]: int(line.split()[1], 16) for line in seen.split("\n") if line.startswith(("SigBlk", "SigIgn"))}
    assert pid == session
    assert masks["SigBlk"] == 0
    assert not masks["SigIgn"] >> (signal.SIGPIPE - 1) & 1


def test_an_interrupt_ends_the_hook(tmp_path: Path) -> None:
    program = (
        "from stockade.sandbox.runtime import hooks\n"
        "from stockade.sandbox.oci.spec import Hook\n"
        f"script = 'echo $$ > {tmp_path}/pid; exec sleep 1000'\n"
        "hooks.run_hooks((Hook('/bin/sh', ('sh', '-c', script)),), b'', 'prestart')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
        time.sleep(0.01)

    process.send_signal(signal.SIGINT)

    process.wait(10)
    assert _gone(int((tmp_path / "pid").read_text()))
