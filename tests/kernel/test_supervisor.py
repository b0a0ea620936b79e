from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from stockade.errors import StockadeError
from stockade.sandbox import supervisor
from stockade.sandbox.linux import calls, process
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    Forked = Callable[[Callable[[], Any]], Any]
    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.kernel


def test_orphans_come_to_the_supervisor(forked: Forked) -> None:
    def child() -> bool:
        supervisor.prepare()
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os.write(writer, b"%d\n" % os.getpid())
                time.sleep(60)
            os._exit(0)
        os.waitpid(middle, 0)
        orphan = int(os.read(reader, 20))
        adopted = process.status(orphan).ppid == os.getpid()
        os.kill(orphan, signal.SIGKILL)
        return adopted and os.waitpid(orphan, 0)[0] == orphan

    assert forked(child)


def test_a_supervisor_whose_parent_has_gone_already_ends_at_once() -> None:
    child = os.fork()
    if child == 0:
        try:
            supervisor.die_with_parent(signal.SIGKILL, os.getppid() + 1)
        finally:
            os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_supervisor_takes_a_name_and_is_undumpable(forked: Forked) -> None:
    def child() -> tuple[str, int]:
        supervisor.prepare(name="a-name-longer-than-the-kernel-takes", dumpable=False)
        return process.status("self").name, calls.prctl(calls.PR_GET_DUMPABLE)

    assert forked(child) == ("a-name-longer-t", 0)


def test_a_kernel_that_says_something_else_is_an_error() -> None:
    with pytest.raises(StockadeError, match="set it: the kernel says 1, not 2"):
        supervisor.confirm("set it", 1, wanted=2)


def test_signals_while_it_cleans_up_leave_nothing(stockade: Run) -> None:
    name = f"test-{uuid.uuid4().hex[:8]}"
    argv = [sys.executable, "-m", "stockade", "run", "--init", "--name", name, "--rm", "--host", "--"]
    with subprocess.Popen([*argv, "sh", "-c", "echo ready; sleep 60"], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        while run.poll() is None:  # from the first to the last moment, as an impatient user's Ctrl-C
            run.send_signal(signal.SIGTERM)
            time.sleep(0.0002)

    assert name not in stockade("gc").stdout
