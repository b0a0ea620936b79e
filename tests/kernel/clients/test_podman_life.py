"""podman as root: the life of a container, from create to rm, and what is done to it while it runs."""

from __future__ import annotations

import json
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.engines import IMAGE
from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from tests.kernel.clients.engines import Podman

pytestmark = pytest.mark.kernel
# All but startContainer, whose hooks run inside, and where createContainer's write is the container's.
STAGES = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
# What may run in the world beside a container and is no runtime: podman's for users and for bridges, and our shell.
OTHERS = {"aardvark-dns", "catatonit", "dash", "slirp4netns"}
# Says `ready` once the trap is set, and waits in a way that a signal interrupts.
TRAPPED = "trap 'echo got {0}; exit 5' {0}; echo ready; while :; do sleep 1000 & wait; done"
CONFINEMENT = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/{}/status"


def ready(podman: Podman, name: str) -> None:
    eventually(lambda: "ready" in podman.said("logs", name), what=f"{name} to say that it is ready")


def test_states_are_told_from_created_to_exited(podman: Podman) -> None:
    podman.said("create", "--name", "lived", "--network", "none", IMAGE, "sh", "-c", "sleep 1000")
    states = [podman.inspect("lived", "{{.State.Status}}")]
    podman("start", "lived", check=True)
    states.append(podman.inspect("lived", "{{.State.Status}}"))
    podman("kill", "lived", check=True)
    assert podman.said("wait", "lived") == "137"
    states.append(podman.inspect("lived", "{{.State.Status}} {{.State.ExitCode}}"))

    assert states == ["created", "running", "exited 137"]


def test_an_initialised_container_waits_for_start(podman: Podman) -> None:
    podman.said("create", "--name", "early", "--network", "none", IMAGE, "sh", "-c", "echo begun; sleep 1000")
    podman("init", "early", check=True)

    assert podman.inspect("early", "{{.State.Status}}") == "initialized"
    assert podman.said("logs", "early") == ""
    podman("start", "early", check=True)
    eventually(lambda: podman.said("logs", "early") == "begun")


def test_an_attached_start_shows_the_output_and_the_exit_code(podman: Podman) -> None:
    podman.said("create", "--name", "attached", "--network", "none", IMAGE, "sh", "-c", "echo hello; exit 4")

    done = podman("start", "--attach", "attached")

    assert (done.returncode, done.stdout) == (4, "hello\n")
    assert podman("start", "--attach", "attached").stdout == "hello\n"  # a second time from the same configuration


def test_logs_keep_both_streams_apart(podman: Podman) -> None:
    podman("run", "--name", "talker", "--network", "none", IMAGE, "sh", "-c", "echo out; echo err >&2")

    done = podman("logs", "talker")

    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_exec_has_its_own_user_directory_environment_streams_and_exit_code(podman: Podman) -> None:
    podman.background("host")
    script = "id -u; pwd; echo $A; cat; echo err >&2; exit 5"

    done = podman("exec", "-i", "-u", "app", "-w", "/tmp", "-e", "A=b c", "host", "sh", "-c", script, input="typed\n")

    assert (done.returncode, done.stdout, done.stderr) == (5, "1000\n/tmp\nb c\ntyped\n", "err\n")


@pytest.mark.parametrize(
    "options", [(), ("--cap-drop", "ALL", "--security-opt", "no-new-privileges"), ("--privileged",)]
)
def test_exec_is_confined_as_the_container_is(podman: Podman, options: tuple[str, ...]) -> None:
    podman.background("confined", *options)

    theirs = podman.said("exec", "confined", "sh", "-c", CONFINEMENT.format("1"))

    assert podman.said("exec", "confined", "sh", "-c", CONFINEMENT.format("self")) == theirs
    if not options:
        assert podman.said("exec", "--privileged", "confined", "sh", "-c", CONFINEMENT.format("self")) != theirs


def test_exec_joins_every_namespace_and_cgroup(podman: Podman) -> None:
    podman.background("joined", "--uidmap", "0:300000:5000", "--gidmap", "0:300000:5000")
    script = "readlink /proc/{0}/ns/* | grep -v children; cat /proc/{0}/cgroup"

    for pid in ("1", "self"):
        said = podman.said("exec", "joined", "sh", "-c", script.format(pid)).splitlines()
        assert said == podman.said("exec", "joined", "sh", "-c", script.format("1")).splitlines()


def test_exec_on_a_terminal(podman: Podman) -> None:
    podman.background("seen")

    with podman.terminal("exec", "-it", "seen", "sh") as terminal:
        terminal.type("until stty size | grep 101; do sleep 0.1; done\n")  # it comes after the start, as a resize
        terminal.expect("33 101\r\n")
        terminal.type("exit 8\n")

        assert terminal.process.wait() == 8


def test_a_detached_exec_runs_on(podman: Podman) -> None:
    podman.background("host")

    podman("exec", "--detach", "host", "sh", "-c", "echo done >/tmp/made; sleep 1000", check=True)

    eventually(lambda: podman("exec", "host", "cat", "/tmp/made").stdout == "done\n")


@pytest.mark.parametrize(("command", "code"), [("/etc/notrunnable", 126), ("nosuchprogram", 127)])
def test_what_exec_cant_start_has_the_shells_exit_code(podman: Podman, command: str, code: int) -> None:
    podman.background("host")

    done = podman("exec", "host", command)

    assert (done.returncode, command in done.stderr) == (code, True), done.stderr


def test_stop_asks_first_and_kills_after_its_time(podman: Podman) -> None:
    podman.background("polite", command=("sh", "-c", TRAPPED.format("TERM")))
    podman.background("deaf")  # process 1 without a handler gets no TERM
    ready(podman, "polite")

    podman("stop", "polite", check=True)
    podman("stop", "--time", "1", "deaf", check=True)

    assert podman.inspect("polite", "{{.State.ExitCode}}") == "5"
    assert podman.inspect("deaf", "{{.State.ExitCode}}") == "137"


def test_kill_sends_the_signal_that_was_asked_for(podman: Podman) -> None:
    podman.background("signalled", command=("sh", "-c", TRAPPED.format("USR1")))
    ready(podman, "signalled")

    podman("kill", "--signal", "USR1", "signalled", check=True)

    assert podman.said("wait", "signalled") == "5"
    assert "got USR1" in podman.said("logs", "signalled")


def test_pause_freezes_every_process_until_unpause(podman: Podman) -> None:
    podman.background("counter", command=("sh", "-c", "n=0; while :; do n=$((n+1)); echo $n >/tmp/n; done"))
    pid = podman.inspect("counter", "{{.State.Pid}}")
    number = podman.world.root / "proc" / pid / "root/tmp/n"
    eventually(number.exists)

    podman("pause", "counter", check=True)

    assert podman.inspect("counter", "{{.State.Status}}") == "paused"
    before = number.read_text()
    assert podman("exec", "counter", "true").returncode != 0
    assert number.read_text() == before
    podman("unpause", "counter", check=True)
    eventually(lambda: number.read_text() not in {"", before}, what="counting to go on")


def test_a_paused_container_can_be_removed(podman: Podman) -> None:
    identity = podman.background("frozen")
    podman("pause", "frozen", check=True)

    podman("rm", "--force", "--time", "0", "frozen", check=True)

    assert not podman.state(identity).exists()


def test_files_are_copied_in_and_out(podman: Podman) -> None:
    podman.background("box")
    (podman.world.root / "tmp/in").write_text("text")

    podman("cp", "/tmp/in", "box:/tmp/there", check=True)
    podman("exec", "box", "sh", "-c", "tr a-z A-Z </tmp/there >/tmp/back", check=True)
    podman("cp", "box:/tmp/back", "/tmp/out", check=True)

    assert (podman.world.root / "tmp/out").read_text() == "TEXT"


def test_a_health_check_is_run_inside(podman: Podman) -> None:
    podman.background("patient", "--health-cmd", "test -e /tmp/well", "--health-interval", "disable")

    assert podman("healthcheck", "run", "patient").returncode == 1
    podman("exec", "patient", "touch", "/tmp/well", check=True)
    assert podman("healthcheck", "run", "patient").returncode == 0


def test_top_and_stats_show_the_processes(podman: Podman) -> None:
    podman.background("busy", command=("sh", "-c", "sleep 1001 & exec sleep 1002"))

    shown = podman.said("top", "busy", "pid", "args")
    stats = podman.said("stats", "--no-stream", "--format", "{{.Name}} {{.PIDS}}", "busy")

    assert "sleep 1001" in shown
    assert "sleep 1002" in shown
    assert stats == "busy 2"


def test_restart_begins_anew_and_a_policy_restarts_by_itself(podman: Podman) -> None:
    podman.background("again")
    first = podman.inspect("again", "{{.State.Pid}}")
    podman("restart", "--time", "0", "again", check=True)
    assert podman.inspect("again", "{{.State.Pid}}") != first

    podman.background(
        "failing", "--restart", "on-failure:2", "-v", "counts:/c", command=("sh", "-c", "echo >>/c/n; exit 1")
    )
    eventually(lambda: podman.inspect("failing", "{{.RestartCount}} {{.State.Status}}") == "2 exited")


def test_rm_takes_a_running_container_with_all_its_processes(podman: Podman) -> None:
    identity = podman.background("gone", command=("sh", "-c", "setsid sleep 12345 & exec sleep 12345"))
    eventually(lambda: podman.world.run("pgrep", "-cf", "sleep 12345").stdout == "2\n")

    podman("rm", "--force", "--time", "0", "gone", check=True)

    assert podman.world.run("pgrep", "-f", "sleep 12345").returncode == 1
    assert not podman.state(identity).exists()


def test_rm_takes_every_process_also_without_a_pid_namespace(podman: Podman) -> None:
    podman.background("mixed", "--pid", "host", command=("sh", "-c", "setsid sleep 54321 & exec sleep 54321"))
    eventually(lambda: podman.world.run("pgrep", "-cf", "^sleep 54321").stdout == "2\n")

    podman("rm", "--force", "--time", "0", "mixed", check=True)

    assert podman.world.run("pgrep", "-f", "^sleep 54321").returncode == 1


def test_a_limit_of_time_ends_a_container(podman: Podman) -> None:
    assert (
        podman("run", "--rm", "--network", "none", "--timeout", "1", IMAGE, "sleep", "1000").returncode == 255
    )  # conmon's own


def test_a_service_manager_is_told_that_a_container_runs(podman: Podman) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(podman.world.root / "run/notify"))
        manager.settimeout(10)

        podman.shown("true", "--sdnotify", "conmon", env={"NOTIFY_SOCKET": "/run/notify"})

        assert b"READY=1" in manager.recv(1000)


def test_a_pod_shares_its_network_and_its_names(podman: Podman) -> None:
    podman("pod", "create", "--name", "pod", "--hostname", "podded", check=True)
    podman.said(
        "run", "--detach", "--pod", "pod", "--name", "server", IMAGE, "nc", "-ll", "-p", "80", "-e", "echo", "hello"
    )

    answer = eventually(lambda: podman("run", "--rm", "--pod", "pod", IMAGE, "nc", "-w", "1", "127.0.0.1", "80").stdout)

    assert answer == "hello\n"
    assert podman.said("run", "--rm", "--pod", "pod", IMAGE, "hostname") == "podded"
    assert podman.said("ps", "--all", "--pod", "--filter", "name=infra", "--format", "{{.Image}}").startswith(
        "localhost/podman-pause"
    )
    podman("pod", "stop", "--time", "0", "pod", check=True)


def test_a_kubernetes_file_is_played_and_generated(podman: Podman) -> None:
    text = f"""
apiVersion: v1
kind: Pod
metadata:
  name: played
spec:
  hostNetwork: false
  containers:
  - name: one
    image: {IMAGE}
    command: [sleep, "1000"]
    securityContext:
      runAsUser: 1000
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
  - name: two
    image: {IMAGE}
    command: [sleep, "1000"]
"""
    (podman.world.root / "tmp/pod.yaml").write_text(text)

    podman("kube", "play", "--network", "none", "/tmp/pod.yaml", check=True)

    said = podman.said(
        "exec", "played-one", "sh", "-c", "id -u; grep CapBnd /proc/1/status; touch /etc/x || echo refused"
    )
    assert said.split() == ["1000", "CapBnd:", "0000000000000000", "refused"]
    assert re.search("runAsUser: 1000", podman.said("generate", "kube", "played"))
    podman("kube", "down", "/tmp/pod.yaml", check=True)
    assert podman.said("ps", "--quiet", "--all") == ""


def test_a_checkpoint_is_refused_with_a_reason(podman: Podman) -> None:
    podman.background("kept")

    done = podman("container", "checkpoint", "kept")

    assert done.returncode == 125
    assert "checkpoint" in done.stderr


def test_no_process_of_the_runtime_stays_beside_a_container(podman: Podman) -> None:
    podman.background("alone")

    programs = podman.world.run("sh", "-c", "for p in /proc/[0-9]*; do readlink $p/exe; done").stdout.split()

    names = [program.rpartition("/")[2] for program in programs[1:]]  # without the world's own first process
    assert sorted(set(names) - OTHERS) == ["conmon", "sleep"]


def test_hooks_get_the_containers_state(podman: Podman) -> None:
    (podman.world.root / "tmp/hooks").mkdir()
    for stage in STAGES:
        script = f"#!/bin/sh\ncat >/tmp/hooks/{stage}.state\n"
        (podman.world.root / f"tmp/hooks/{stage}.sh").write_text(script)
        (podman.world.root / f"tmp/hooks/{stage}.sh").chmod(0o755)
        hook = {
            "version": "1.0.0",
            "hook": {"path": f"/tmp/hooks/{stage}.sh"},
            "when": {"always": True},
            "stages": [stage],
        }
        (podman.world.root / f"tmp/hooks/{stage}.json").write_text(json.dumps(hook))

    name = podman.said("--hooks-dir", "/tmp/hooks", "create", "--name", "hooked", "--network", "none", IMAGE, "true")
    podman("--hooks-dir", "/tmp/hooks", "start", "--attach", "hooked", check=True)
    podman("rm", "hooked", check=True)

    states = {
        stage: json.loads(eventually((podman.world.root / f"tmp/hooks/{stage}.state").read_text)) for stage in STAGES
    }
    assert {state["id"] for state in states.values()} == {name}
    early = states["prestart"]["status"], states["createRuntime"]["status"]
    assert early in {("creating", "creating"), ("created", "created")}
    assert (states["poststart"]["status"], states["poststop"]["status"]) == ("running", "stopped")


def test_ten_containers_start_at_once(podman: Podman) -> None:
    with ThreadPoolExecutor(10) as pool:
        said = list(pool.map(lambda number: podman.shown(f"echo {number}"), range(10)))

    assert said == [str(number) for number in range(10)]
    assert os.listdir(podman.state("")) == []
