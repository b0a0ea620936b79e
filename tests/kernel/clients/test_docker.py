"""Docker: dockerd through containerd-shim-runc-v2, with the runtime under test as its default runtime."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.docker import CALLED
from tests.kernel.clients.engines import IMAGE
from tests.kernel.clients.under_test import RUNTIME
from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from tests.kernel.clients.docker import Docker

pytestmark = pytest.mark.kernel
LINE = "awk '/^{}:/ {{print $2}}' /proc/self/status"
CONFINEMENT = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/{}/status"
TRAPPED = "trap 'echo got {0}; exit 5' {0}; echo ready; while :; do sleep 1000 & wait; done"


def test_the_exit_code_and_both_streams_come_through(docker: Docker) -> None:
    done = docker("run", "-i", "--rm", IMAGE, "sh", "-c", "cat; echo err >&2; exit 7", input="typed\n")

    assert (done.returncode, done.stdout, done.stderr) == (7, "typed\n", "err\n")


def test_a_megabyte_of_standard_input_comes_back(docker: Docker) -> None:
    text = "0123456789abcde\n" * 65536

    assert docker("run", "-i", "--rm", "--network", "none", IMAGE, "cat", input=text).stdout == text


def test_a_container_is_of_the_runtime_under_test_and_leaves_nothing(docker: Docker) -> None:
    identity = docker.background("one")

    assert docker.inspect("one", "{{.HostConfig.Runtime}}") == CALLED
    assert docker.state(identity).is_dir()
    assert json.loads(docker.options(identity))["binary_name"] == str(RUNTIME)
    docker("rm", "--force", "one", check=True)
    assert not docker.state(identity).exists()


def test_a_terminal_has_its_size_follows_it_and_gives_the_exit_code(docker: Docker) -> None:
    with docker.terminal("run", "-it", "--rm", "--network", "none", IMAGE, "sh") as terminal:
        terminal.type("tty; until stty size | grep 101; do sleep 0.1; done\n")  # it comes after the start, as a resize
        terminal.expect("/dev/pts/0\r\n")
        terminal.expect("33 101\r\n")
        terminal.resize(44, 122)
        terminal.type("until stty size | grep 122; do sleep 0.1; done\n")
        terminal.expect("44 122\r\n")
        terminal.type("test -c /dev/console && echo con''sole; exit 9\n")
        terminal.expect("console\r\n")

        assert terminal.process.wait() == 9


def test_a_detached_terminal_is_attached_later(docker: Docker) -> None:
    docker.background("shell", "-it", command=("sh",))

    with docker.terminal("attach", "shell") as terminal:
        terminal.type("echo at''tached; exit 3\n")
        terminal.expect("attached\r\n")

        assert terminal.process.wait() == 3


def test_user_groups_directory_host_name_and_environment_are_as_asked(docker: Docker) -> None:
    script = "id -u; id -g; id -G; pwd; hostname; echo $A $IMAGE"
    options = ("--user", "app", "--workdir", "/made/new", "--hostname", "wanted", "--env", "A=b c", "--group-add", "77")

    said = docker.shown(script, *options).splitlines()

    assert said[:2] == ["1000", "1000"]
    assert set(said[2].split()) == {"1000", "77", "2000"}
    assert said[3:] == ["/made/new", "wanted", "b c yes"]


def test_exec_has_its_own_user_directory_environment_streams_and_exit_code(docker: Docker) -> None:
    docker.background("host")
    script = "id -u; pwd; echo $A; cat; echo err >&2; exit 5"

    done = docker("exec", "-i", "-u", "app", "-w", "/tmp", "-e", "A=b c", "host", "sh", "-c", script, input="typed\n")

    assert (done.returncode, done.stdout, done.stderr) == (5, "1000\n/tmp\nb c\ntyped\n", "err\n")


@pytest.mark.parametrize(
    "options", [(), ("--cap-drop", "ALL", "--security-opt", "no-new-privileges"), ("--privileged",)]
)
def test_exec_is_confined_as_the_container_is(docker: Docker, options: tuple[str, ...]) -> None:
    docker.background("confined", *options)

    theirs = docker.said("exec", "confined", "sh", "-c", CONFINEMENT.format("1"))

    assert docker.said("exec", "confined", "sh", "-c", CONFINEMENT.format("self")) == theirs


def test_exec_on_a_terminal(docker: Docker) -> None:
    docker.background("seen")

    with docker.terminal("exec", "-it", "seen", "sh") as terminal:
        terminal.type("until stty size | grep 101; do sleep 0.1; done\n")
        terminal.expect("33 101\r\n")
        terminal.type("exit 8\n")

        assert terminal.process.wait() == 8


def test_a_detached_exec_runs_on(docker: Docker) -> None:
    docker.background("host")

    docker("exec", "--detach", "host", "sh", "-c", "echo done >/tmp/made; sleep 1000", check=True)

    eventually(lambda: docker("exec", "host", "cat", "/tmp/made").stdout == "done\n")


def test_capabilities_are_dropped_and_added(docker: Docker) -> None:
    options = ("--cap-drop", "ALL", "--cap-add", "NET_RAW", "--cap-add", "CHOWN")

    assert int(docker.shown(LINE.format("CapEff"), *options), 16) == 1 << 13 | 1
    assert int(docker.shown(LINE.format("CapEff"), "--user", "app"), 16) == 0


def test_a_privileged_container_has_what_the_caller_has(docker: Docker) -> None:
    mine = docker.world.run("sh", "-c", LINE.format("CapEff")).stdout.strip()

    said = docker.shown(f"{LINE.format('CapEff')}; {LINE.format('Seccomp')}; ls /dev/kmsg", "--privileged").split()

    assert int(said[0], 16) == int(mine, 16) & ((1 << 38) - 1)  # Docker 20.10 knows no later ones than AUDIT_READ
    assert said[1:] == ["0", "/dev/kmsg"]


def test_seccomp_and_no_new_privileges_are_as_asked(docker: Docker) -> None:
    script = LINE.format("Seccomp") + ";" + LINE.format("NoNewPrivs")

    assert docker.shown(script).split() == ["2", "0"]
    assert docker.shown(
        script, "--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"
    ).split() == ["0", "1"]


def test_a_read_only_root_keeps_its_tmpfs_writable(docker: Docker) -> None:
    script = "touch /x || echo refused; touch /scratch/x && df -k /scratch | awk 'END {print $2}'"

    assert docker.sh(script, "--read-only", "--tmpfs", "/scratch:size=1m").stdout.split() == ["refused", "1024"]


def test_volumes_are_kept_and_are_read_only_where_asked(docker: Docker) -> None:
    docker.shown("echo kept >/data/file", "-v", "kept:/data")

    done = docker.sh("cat /data/file; touch /data/x || echo refused", "-v", "kept:/data:ro")

    assert done.stdout.split() == ["kept", "refused"]
    docker("volume", "rm", "kept", check=True)


def test_a_device_opens_with_the_access_that_was_asked_for_and_no_other(docker: Docker) -> None:
    script = "(: </dev/mine) && echo read; (: >>/dev/mine) && echo written"

    for access, said in (("r", ["read"]), ("w", ["written"])):
        done = docker.sh(script, "--device", f"/dev/kmsg:/dev/mine:{access}", "--cap-add", "SYSLOG")
        assert done.stdout.split() == said, done


def test_the_cgroup_has_the_limits_that_were_asked_for_and_update_changes_them(docker: Docker) -> None:
    docker.background("limited", "--memory", "64m", "--pids-limit", "33", "--cpus", "0.5", "--cpuset-cpus", "0")

    assert docker.limit("limited", "memory") == str(64 << 20)
    assert docker.limit("limited", "pids") == "33"
    assert docker.limit("limited", "cpu") == "50000"
    assert docker.limit("limited", "cpuset") == "0"
    docker("update", "--memory", "128m", "--memory-swap", "256m", "--pids-limit", "44", "limited", check=True)
    assert docker.limit("limited", "memory") == str(128 << 20)
    assert docker.limit("limited", "pids") == "44"
    assert docker.limit("limited", "cpu") == "50000"


def test_a_program_that_takes_more_memory_than_allowed_is_killed_and_inspect_says_so(docker: Docker) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=200M; echo dd ended with $?; sleep 1000"
    docker.background("big", "--memory", "32m", "--memory-swap", "32m", command=("sh", "-c", script))

    eventually(lambda: "dd ended with 137" in docker.said("logs", "big"))
    docker("stop", "--time", "0", "big", check=True)

    assert docker.inspect("big", "{{.State.OOMKilled}}") == "true"


def test_a_limit_and_a_sysctl_are_set(docker: Docker) -> None:
    options = (
        "--ulimit",
        "nofile=123:456",
        "--sysctl",
        "kernel.msgmax=12345",
        "--sysctl",
        "net.ipv4.ip_default_ttl=77",
    )

    said = docker.shown(
        "ulimit -n; ulimit -Hn; cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl", *options
    )

    assert said.split() == ["123", "456", "12345", "77"]


def test_an_init_program_is_process_one(docker: Docker) -> None:
    assert docker.shown("cat /proc/1/comm", "--init") == "docker-init"


def test_stop_asks_first_and_kills_after_its_time(docker: Docker) -> None:
    docker.background("polite", command=("sh", "-c", TRAPPED.format("TERM")))
    docker.background("deaf")
    eventually(lambda: "ready" in docker.said("logs", "polite"))

    docker("stop", "polite", check=True)
    docker("stop", "--time", "1", "deaf", check=True)

    assert docker.inspect("polite", "{{.State.ExitCode}}") == "5"
    assert docker.inspect("deaf", "{{.State.ExitCode}}") == "137"


def test_kill_sends_the_signal_that_was_asked_for(docker: Docker) -> None:
    docker.background("signalled", command=("sh", "-c", TRAPPED.format("USR1")))
    eventually(lambda: "ready" in docker.said("logs", "signalled"))

    docker("kill", "--signal", "USR1", "signalled", check=True)

    assert docker.said("wait", "signalled") == "5"


def test_pause_freezes_every_process_until_unpause(docker: Docker) -> None:
    docker.background("counter", command=("sh", "-c", "n=0; while :; do n=$((n+1)); echo $n >/tmp/n; done"))
    number = docker.world.root / "proc" / docker.inspect("counter", "{{.State.Pid}}") / "root/tmp/n"
    eventually(number.exists)

    docker("pause", "counter", check=True)

    assert docker.inspect("counter", "{{.State.Status}}") == "paused"
    before = number.read_text()
    assert docker("exec", "counter", "true").returncode != 0
    assert number.read_text() == before
    docker("unpause", "counter", check=True)
    eventually(lambda: number.read_text() not in {"", before}, what="counting to go on")


def test_top_and_stats_show_the_processes(docker: Docker) -> None:
    docker.background("busy", command=("sh", "-c", "sleep 1001 & exec sleep 1002"))

    shown = docker.said("top", "busy")

    assert "sleep 1001" in shown
    assert "sleep 1002" in shown
    assert docker.said("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "busy") == "busy 2"


def test_restart_begins_anew_and_a_policy_restarts_by_itself(docker: Docker) -> None:
    docker.background("again")
    first = docker.inspect("again", "{{.State.Pid}}")
    docker("restart", "--time", "0", "again", check=True)
    assert docker.inspect("again", "{{.State.Pid}}") != first

    docker.background("failing", "--restart", "on-failure:2", command=("false",))
    eventually(lambda: docker.inspect("failing", "{{.RestartCount}} {{.State.Status}}") == "2 exited")


def test_a_health_check_is_run_inside(docker: Docker) -> None:
    docker.background(
        "patient", "--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "1"
    )

    eventually(lambda: docker.inspect("patient", "{{.State.Health.Status}}") == "unhealthy")
    docker("exec", "patient", "touch", "/tmp/well", check=True)
    eventually(lambda: docker.inspect("patient", "{{.State.Health.Status}}") == "healthy")


def test_files_are_copied_in_and_out(docker: Docker) -> None:
    docker.background("box")
    (docker.world.root / "tmp/in").write_text("text")

    docker("cp", "/tmp/in", "box:/tmp/there", check=True)
    docker("exec", "box", "sh", "-c", "tr a-z A-Z </tmp/there >/tmp/back", check=True)
    docker("cp", "box:/tmp/back", "/tmp/out", check=True)

    assert (docker.world.root / "tmp/out").read_text() == "TEXT"


def test_containers_of_one_network_reach_each_other_by_name(docker: Docker) -> None:
    docker("network", "create", "between", check=True)
    try:
        docker.background("server", "--network", "between", command=("nc", "-ll", "-p", "80", "-e", "echo", "hello"))

        eventually(
            lambda: (
                docker("run", "--rm", "--network", "between", IMAGE, "nc", "-w", "2", "server", "80").stdout
                == "hello\n"
            )
        )
        assert docker("run", "--rm", IMAGE, "nc", "-w", "2", "server", "80").returncode != 0
    finally:
        docker.clean()
        docker("network", "rm", "between", check=True)


def test_a_published_port_is_reached_from_the_host(docker: Docker) -> None:
    docker.background("server", "--publish", "8088:80", command=("nc", "-ll", "-p", "80", "-e", "echo", "hello"))

    eventually(lambda: docker.world.run("busybox", "nc", "-w", "2", "127.0.0.1", "8088").stdout == "hello\n")


@pytest.mark.parametrize("namespace", ["pid", "ipc", "net"])
def test_a_namespace_of_another_container_or_the_host_is_shared_where_asked(docker: Docker, namespace: str) -> None:
    docker.background("first", "--ipc", "shareable")
    link = f"/proc/self/ns/{namespace}"
    theirs = docker.said("exec", "first", "readlink", link)
    mine = docker.world.run("readlink", link).stdout.strip()
    option = {"net": "--network"}.get(namespace, f"--{namespace}")

    assert docker.said("run", "--rm", option, "container:first", IMAGE, "readlink", link) == theirs
    assert docker.said("run", "--rm", option, "host", IMAGE, "readlink", link) == mine


def test_the_hosts_user_namespace_may_be_asked_for(docker: Docker) -> None:
    mine = docker.world.run("readlink", "/proc/self/ns/user").stdout.strip()

    assert docker.shown("readlink /proc/self/ns/user", "--userns", "host") == mine


def test_the_kernels_interfaces_are_masked_and_read_only(docker: Docker) -> None:
    script = "wc -c </proc/keys; ls /proc/acpi | wc -l; (echo 1 >/proc/sys/kernel/msgmax) 2>&1 | grep -c 'Read-only'"

    assert docker.sh(script).stdout.split() == ["0", "0", "1"]


@pytest.mark.parametrize(
    ("command", "code"), [("/etc/notrunnable", 126), ("/etc", 126), ("nosuchprogram", 127), ("/no/such/program", 127)]
)
def test_a_command_that_cant_be_started_has_the_shells_exit_code(docker: Docker, command: str, code: int) -> None:
    done = docker("run", "--rm", "--network", "none", IMAGE, command)

    assert (done.returncode, command in done.stderr) == (code, True), done.stderr
    assert os.listdir(docker.state("")) == []


@pytest.mark.parametrize(("command", "code"), [("/etc/notrunnable", 126), ("nosuchprogram", 126)])
def test_what_exec_cant_start_is_told(docker: Docker, command: str, code: int) -> None:
    docker.background("host")

    done = docker("exec", "host", command)

    assert (done.returncode, command in done.stdout + done.stderr) == (code, True), done


def test_rm_takes_a_running_container_with_all_its_processes(docker: Docker) -> None:
    identity = docker.background("gone", command=("sh", "-c", "setsid sleep 12345 & exec sleep 12345"))
    eventually(lambda: docker.world.run("pgrep", "-cf", "sleep 12345").stdout == "2\n")

    docker("rm", "--force", "gone", check=True)

    assert docker.world.run("pgrep", "-f", "sleep 12345").returncode == 1
    assert not docker.state(identity).exists()


def test_rm_takes_every_process_also_without_a_pid_namespace(docker: Docker) -> None:
    docker.background("mixed", "--pid", "host", command=("sh", "-c", "setsid sleep 54321 & exec sleep 54321"))
    eventually(lambda: docker.world.run("pgrep", "-cf", "^sleep 54321").stdout == "2\n")

    docker("rm", "--force", "mixed", check=True)

    eventually(lambda: docker.world.run("pgrep", "-f", "^sleep 54321").returncode == 1)


def test_logs_keep_both_streams_apart(docker: Docker) -> None:
    docker("run", "--name", "talker", IMAGE, "sh", "-c", "echo out; echo err >&2")

    done = docker("logs", "talker")

    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_an_image_is_built_with_run_steps(docker: Docker) -> None:
    text = f"FROM {IMAGE}\nRUN grep Seccomp: /proc/self/status >/status\nUSER app\nRUN id -u >/tmp/id\n"

    docker("build", "--tag", "localhost/built", "-", input=text, check=True)

    assert docker.said("run", "--rm", "localhost/built", "cat", "/status", "/tmp/id").split() == [
        "Seccomp:",
        "2",
        "1000",
    ]
    done = docker("build", "-", input=f"FROM {IMAGE}\nRUN exit 7\n")
    assert "returned a non-zero code: 7" in done.stderr


def test_eight_containers_start_at_once(docker: Docker) -> None:
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda number: docker.shown(f"echo {number}"), range(8)))

    assert said == [str(number) for number in range(8)]
    eventually(lambda: os.listdir(docker.state("")) == [])
