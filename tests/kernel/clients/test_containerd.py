"""containerd without Docker: `ctr run --runc-binary`, on the containerd that dockerd started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from tests.kernel.clients.docker import Ctr

pytestmark = pytest.mark.kernel


def test_a_container_runs_with_its_streams_and_its_exit_code(ctr: Ctr) -> None:
    done = ctr.run("plain", "sh", "-c", "echo out; echo err >&2; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_a_container_has_the_confinement_that_was_asked_for(ctr: Ctr) -> None:
    options = ("--read-only", "--cap-drop", "CAP_CHOWN", "--cwd", "/tmp", "--env", "A=b")
    script = "pwd; echo $A; touch /tmp/x || echo refused; grep -E 'CapBnd|Seccomp:|NoNewPrivs' /proc/self/status"

    done = ctr.run("given", "sh", "-c", script, options=(*options, "--seccomp"))

    said = done.stdout.split()
    assert said[:3] == ["/tmp", "b", "refused"]
    words = dict(zip(said[3::2], said[4::2], strict=True))
    assert int(words["CapBnd:"], 16) & 1 == 0
    assert (words["Seccomp:"], words["NoNewPrivs:"]) == ("2", "1")


def test_a_task_is_executed_in_listed_paused_resumed_and_killed(ctr: Ctr) -> None:
    ctr.run("task", "sleep", "1000", options=("--detach",), check=True)
    assert ctr.state("task").is_dir()

    assert ctr("task", "exec", "--exec-id", "e", "task", "sh", "-c", "cat /proc/1/cmdline; exit 5").returncode == 5
    pid = ctr.said("task", "ps", "task").splitlines()[1].split()[0]
    assert (ctr.world.root / "proc" / pid / "cmdline").read_text().startswith("sleep")
    ctr("task", "pause", "task", check=True)
    assert "PAUSED" in ctr.said("task", "ls")
    ctr("task", "resume", "task", check=True)
    assert "RUNNING" in ctr.said("task", "ls")
    assert "memory" in ctr.said("task", "metrics", "task")
    ctr("task", "kill", "--signal", "KILL", "task", check=True)
    eventually(lambda: "STOPPED" in ctr.said("task", "ls"))
    ctr("task", "delete", "task")
    assert not ctr.state("task").exists()


def test_a_terminal_has_its_size_and_the_exit_code(ctr: Ctr) -> None:
    with ctr.terminal("seen", "sh") as terminal:
        terminal.expect("# ")  # ctr puts the terminal into raw mode and passes its size on before
        terminal.type("until stty size | grep 101; do sleep 0.1; done; exit 8\n")
        terminal.expect("33 101")

        assert terminal.process.wait() == 8
