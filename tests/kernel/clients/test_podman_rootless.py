"""podman as an unprivileged user: the same runtime, with the user's ids alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.engines import IMAGE
from tests.kernel.clients.under_test import NAME
from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from tests.kernel.clients.engines import Podman

pytestmark = pytest.mark.kernel
MAP = "cat /proc/self/uid_map"


def test_a_container_runs_with_its_streams_and_its_exit_code(rootless: Podman) -> None:
    done = rootless(
        "run", "-i", "--rm", "--network", "none", IMAGE, "sh", "-c", "cat; echo err >&2; exit 7", input="typed"
    )

    assert (done.returncode, done.stdout, done.stderr) == (7, "typed", "err\n")


def test_a_container_is_of_the_runtime_under_test_and_leaves_nothing(rootless: Podman) -> None:
    identity = rootless.background("one")

    assert rootless.inspect("one", "{{.OCIRuntime}}") == NAME
    assert rootless.state(identity).is_dir()
    rootless("rm", "--force", "--time", "0", "one", check=True)
    assert not rootless.state(identity).exists()


def test_root_inside_is_the_user_outside(rootless: Podman) -> None:
    assert rootless.user is not None
    identity = rootless.background("mapped", "--user", "0")
    pid = rootless.inspect(identity, "{{.State.Pid}}")

    assert (rootless.world.root / "proc" / pid).stat().st_uid == rootless.user.pw_uid
    assert rootless.said("exec", "mapped", "id", "-u") == "0"


def test_keep_id_keeps_the_users_own_id(rootless: Podman) -> None:
    assert rootless.user is not None
    own = str(rootless.user.pw_uid)

    said = rootless.shown(
        "id -u; touch /tmp/x /v/x; stat -c %u /tmp/x /etc/passwd", "--userns", "keep-id", "-v", "kept:/v"
    ).split()

    assert said == [own, own, "0"]


def test_nomap_leaves_the_user_out(rootless: Podman) -> None:
    assert rootless.user is not None
    maps = [line.split() for line in rootless.shown(MAP, "--userns", "nomap").splitlines()]

    assert maps[0][0] == "0"
    assert all(int(line[1]) != 0 for line in maps)  # 0 is the user, in Podman's own user namespace


def test_auto_takes_a_part_of_the_subordinate_ids(rootless: Podman) -> None:
    assert rootless.shown(MAP, "--userns", "auto:size=1000").split()[2] == "1000"


def test_exec_has_its_user_its_environment_and_its_exit_code(rootless: Podman) -> None:
    rootless.background("host")

    done = rootless("exec", "-u", "app", "-e", "A=b", "host", "sh", "-c", "id -u; echo $A; exit 5")

    assert (done.returncode, done.stdout) == (5, "1000\nb\n")


def test_exec_is_confined_as_the_container_is(rootless: Podman) -> None:
    rootless.background("confined", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    script = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/{}/status"

    theirs = rootless.said("exec", "confined", "sh", "-c", script.format("1"))

    assert rootless.said("exec", "confined", "sh", "-c", script.format("self")) == theirs
    assert "NoNewPrivs:\t1" in theirs


@pytest.mark.parametrize("how", ["run", "exec"])
def test_a_terminal_has_its_size_and_the_exit_code(rootless: Podman, how: str) -> None:
    command: tuple[str, ...] = ("run", "-it", "--rm", "--network", "none", IMAGE, "sh")
    if how == "exec":
        rootless.background("seen")
        command = ("exec", "-it", "seen", "sh")

    with rootless.terminal(*command) as terminal:
        terminal.type("until stty size | grep 101; do sleep 0.1; done\n")
        terminal.expect("33 101\r\n")
        terminal.type("exit 8\n")

        assert terminal.process.wait() == 8
    if how == "run":
        assert rootless.shown("echo") == ""


def test_the_users_network_gives_an_address(rootless: Podman) -> None:
    assert "inet 10.0.2.100/24" in rootless.said("run", "--rm", IMAGE, "ip", "-4", "address")


def test_the_hosts_network_is_the_hosts(rootless: Podman) -> None:
    mine = rootless.world.run("readlink", "/proc/self/ns/net").stdout.strip()

    assert rootless.said("run", "--rm", "--network", "host", IMAGE, "readlink", "/proc/self/ns/net") == mine


def test_a_privileged_container_has_all_that_the_user_has(rootless: Podman) -> None:
    script = "grep -E '^(CapEff|Seccomp:)' /proc/self/status; mkdir /mnt; mount -t tmpfs x /mnt && echo mounted"

    said = rootless.shown(script, "--privileged")

    assert "Seccomp:\t0" in said
    assert "mounted" in said
    assert int(said.split()[1], 16) & (1 << 21)  # CAP_SYS_ADMIN in the user's own namespace


def test_seccomp_and_capabilities_are_as_asked(rootless: Podman) -> None:
    script = "grep -E '^(CapEff|Seccomp:)' /proc/self/status"

    assert rootless.shown(script, "--cap-drop", "ALL").split() == ["CapEff:", "0" * 16, "Seccomp:", "2"]
    assert rootless.shown(script, "--security-opt", "seccomp=unconfined").split()[3] == "0"


def test_a_device_of_the_host_is_there(rootless: Podman) -> None:
    assert rootless.shown("head -c 3 /dev/mine | wc -c", "--device", "/dev/zero:/dev/mine") == "3"


def test_a_read_only_root_still_has_its_writable_places(rootless: Podman) -> None:
    script = "touch /x || echo refused; touch /tmp/x /scratch/x && echo written"

    assert rootless.sh(script, "--read-only", "--tmpfs", "/scratch:size=1m").stdout.split() == ["refused", "written"]


def test_a_volume_is_read_only_where_asked(rootless: Podman) -> None:
    rootless.shown("echo kept >/data/file", "-v", "data:/data")

    done = rootless.sh("cat /data/file; touch /data/x || echo refused", "-v", "data:/data:ro")

    assert done.stdout.split() == ["kept", "refused"]


def test_stop_and_kill_end_a_container(rootless: Podman) -> None:
    rootless.background(
        "polite", command=("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 1000 & wait; done")
    )
    eventually(lambda: "ready" in rootless.said("logs", "polite"))
    rootless.background("deaf")

    rootless("stop", "polite", check=True)
    rootless("kill", "deaf", check=True)

    assert rootless.said("wait", "polite", "deaf").split() == ["5", "137"]


def test_a_pod_shares_its_network(rootless: Podman) -> None:
    rootless("pod", "create", "--name", "pod", "--network", "none", check=True)
    rootless.said("run", "--detach", "--pod", "pod", IMAGE, "nc", "-ll", "-p", "8080", "-e", "echo", "hello")

    eventually(
        lambda: rootless("run", "--rm", "--pod", "pod", IMAGE, "nc", "-w", "1", "127.0.0.1", "8080").stdout == "hello\n"
    )


def test_an_init_program_is_process_one(rootless: Podman) -> None:
    assert rootless.shown("cat /proc/1/comm", "--init") == "podman-init"


def test_a_sysctl_of_the_users_own_namespaces_is_set(rootless: Podman) -> None:
    assert rootless.shown("cat /proc/sys/net/ipv4/ip_default_ttl", "--sysctl", "net.ipv4.ip_default_ttl=77") == "77"


@pytest.mark.parametrize(("command", "code"), [("/etc/notrunnable", 126), ("nosuchprogram", 127)])
def test_a_command_that_cant_be_started_has_the_shells_exit_code(rootless: Podman, command: str, code: int) -> None:
    done = rootless("run", "--rm", "--network", "none", IMAGE, command)

    assert (done.returncode, command in done.stderr) == (code, True), done.stderr


def test_top_shows_the_processes(rootless: Podman) -> None:
    rootless.background("busy")

    assert "sleep 1000" in rootless.said("top", "busy", "pid", "args")
