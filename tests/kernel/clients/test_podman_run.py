"""podman run as root: what a container is given, seen from inside."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.engines import IMAGE
from tests.kernel.clients.under_test import NAME
from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from tests.kernel.clients.engines import Podman

pytestmark = pytest.mark.kernel
LINE = "awk '/^{}:/ {{print $2}}' /proc/self/status"


def capabilities(*numbers: int) -> str:
    return f"{sum(1 << number for number in numbers):016x}"


def test_the_exit_code_and_both_streams_come_through(podman: Podman) -> None:
    done = podman.sh("echo out; echo err >&2; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_a_megabyte_of_standard_input_comes_back(podman: Podman) -> None:
    text = "0123456789abcde\n" * 65536

    assert podman("run", "-i", "--rm", "--network", "none", IMAGE, "cat", input=text).stdout == text


def test_a_container_is_of_the_runtime_under_test_and_leaves_nothing(podman: Podman) -> None:
    identity = podman.background("one")

    assert podman.inspect("one", "{{.OCIRuntime}}") == NAME
    assert podman.state(identity).is_dir()
    assert podman.said("rm", "--force", "--time", "0", "one")
    assert not podman.state(identity).exists()


def test_a_terminal_has_its_size_follows_it_and_gives_the_exit_code(podman: Podman) -> None:
    with podman.terminal("run", "-it", "--rm", "--network", "none", IMAGE, "sh") as terminal:
        terminal.type("tty; until stty size | grep 101; do sleep 0.1; done\n")  # it comes after the start, as a resize
        terminal.expect("/dev/pts/0\r\n")
        terminal.expect("33 101\r\n")
        terminal.resize(44, 122)
        terminal.type("until stty size | grep 122; do sleep 0.1; done\n")
        terminal.expect("44 122\r\n")
        terminal.type("test -c /dev/console && echo con''sole; exit 9\n")
        terminal.expect("console\r\n")

        assert terminal.process.wait() == 9


def test_user_groups_directory_host_name_and_environment_are_as_asked(podman: Podman) -> None:
    script = "id -u; id -g; id -G; pwd; hostname; echo $A $IMAGE; umask"
    options = ("--user", "app", "--workdir", "/tmp", "--hostname", "wanted", "--env", "A=b c", "--group-add", "77")

    said = podman.shown(script, *options, "--umask", "0027").splitlines()

    assert said == ["1000", "1000", "1000 77 2000", "/tmp", "wanted", "b c yes", "0027"]


def test_a_user_that_no_file_names_may_run(podman: Podman) -> None:
    assert podman.shown("id -u; id -g", "--user", "1234:5678").split() == ["1234", "5678"]


def test_capabilities_are_dropped_and_added(podman: Podman) -> None:
    options = ("--cap-drop", "ALL", "--cap-add", "NET_RAW,CHOWN")

    for line in ("CapEff", "CapPrm", "CapBnd"):
        assert podman.shown(LINE.format(line), *options) == capabilities(13, 0)


def test_a_user_who_is_not_root_has_no_capability_in_effect(podman: Podman) -> None:
    assert podman.shown(LINE.format("CapEff"), "--user", "app") == capabilities()
    assert podman.shown(
        LINE.format("CapEff"), "--user", "app", "--cap-drop", "ALL", "--cap-add", "CHOWN"
    ) == capabilities(0)


def test_a_privileged_container_has_what_the_caller_has(podman: Podman) -> None:
    mine = podman.world.run("sh", "-c", LINE.format("CapEff")).stdout.strip()

    said = podman.shown(f"{LINE.format('CapEff')}; {LINE.format('Seccomp')}; ls /dev/kmsg", "--privileged").split()

    assert said == [mine, "0", "/dev/kmsg"]
    assert podman.shown("echo 1 >/proc/sys/net/ipv4/ip_forward && echo ok", "--privileged") == "ok"
    assert podman.sh("echo 1 >/proc/sys/net/ipv4/ip_forward").returncode != 0


def test_seccomp_is_on_unless_unconfined_was_asked_for(podman: Podman) -> None:
    assert podman.shown(LINE.format("Seccomp")) == "2"
    assert podman.shown(LINE.format("Seccomp"), "--security-opt", "seccomp=unconfined") == "0"


def test_a_seccomp_profile_of_ones_own_is_enforced(podman: Podman) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]}
    (podman.world.root / "tmp/profile.json").write_text(json.dumps(profile))

    done = podman.sh("mkdir /tmp/new", "--security-opt", "seccomp=/tmp/profile.json")

    assert done.returncode == 1
    assert "quota exceeded" in done.stderr.lower()  # EDQUOT, which nothing else gives here


def test_no_new_privileges_is_set_where_asked(podman: Podman) -> None:
    assert podman.shown(LINE.format("NoNewPrivs")) == "0"
    assert podman.shown(LINE.format("NoNewPrivs"), "--security-opt", "no-new-privileges") == "1"


def test_a_read_only_root_still_has_its_writable_places(podman: Podman) -> None:
    script = "touch /x || echo refused; touch /tmp/x /run/x /scratch/x && echo written"

    done = podman.sh(script, "--read-only", "--tmpfs", "/scratch")

    assert done.stdout.split() == ["refused", "written"]


def test_a_tmpfs_has_its_size_its_mode_and_its_flags(podman: Podman) -> None:
    script = "df -k /scratch | awk 'END {print $2}'; stat -c %a /scratch; grep ' /scratch ' /proc/mounts"

    size, mode, mounts = podman.shown(script, "--tmpfs", "/scratch:size=1m,mode=0710,noexec,nosuid,nodev").split("\n")

    assert (size, mode) == ("1024", "710")
    assert {"noexec", "nosuid", "nodev"} < set(mounts.split()[3].split(","))


def test_a_directory_is_mounted_for_reading_and_another_for_writing(podman: Podman) -> None:
    for name in ("ro", "rw"):
        (podman.world.root / "tmp" / name).mkdir()
        (podman.world.root / "tmp" / name / "file").write_text(name)

    done = podman.sh(
        "cat /ro/file /rw/file; touch /ro/x || echo -refused; touch /rw/x", "-v", "/tmp/ro:/ro:ro", "-v", "/tmp/rw:/rw"
    )

    assert done.stdout == "rorw-refused\n"
    assert not (podman.world.root / "tmp/ro/x").exists()
    assert (podman.world.root / "tmp/rw/x").exists()


def test_a_read_only_mount_with_mounts_below_it_takes_the_option_where_it_was_put(podman: Podman) -> None:
    (podman.world.root / "tmp/above/below").mkdir(parents=True)
    podman.world.run("mount", "-t", "tmpfs", "inner", "/tmp/above/below", check=True)

    assert podman.shown("grep -c inner /proc/mounts", "-v", "/tmp/above:/above:ro,rbind") == "1"
    assert podman.shown("grep -c inner /proc/mounts || true", "-v", "/tmp/above:/above:ro,bind") == "0"


def test_a_read_only_volume_is_so_with_all_that_is_mounted_below(podman: Podman) -> None:
    (podman.world.root / "tmp/over/under").mkdir(parents=True)
    podman.world.run("mount", "-t", "tmpfs", "inner", "/tmp/over/under", check=True)

    done = podman.sh("touch /over/x || echo refused; touch /over/under/x || echo refused", "-v", "/tmp/over:/over:ro")

    assert done.stdout.split() == ["refused", "refused"]


def test_a_slave_volume_sees_later_mounts_of_the_host_and_a_private_one_does_not(podman: Podman) -> None:
    for kind in ("rslave", "rprivate"):
        (podman.world.root / "tmp" / kind / "sub").mkdir(parents=True)
        podman.background(kind, "-v", f"/tmp/{kind}:/v:{kind}")
        podman.world.run("mount", "-t", "tmpfs", "later", f"/tmp/{kind}/sub", check=True)

    assert podman("exec", "rslave", "grep", "later", "/proc/mounts").returncode == 0
    assert podman("exec", "rprivate", "grep", "later", "/proc/mounts").returncode == 1


def test_a_volume_is_mapped_to_the_containers_ids_where_asked(podman: Podman) -> None:
    (podman.world.root / "tmp/mapped").mkdir()
    maps = ("--uidmap", "0:300000:5000", "--gidmap", "0:300000:5000")

    said = podman.shown("touch /v/made; stat -c %u /v /v/made", *maps, "-v", "/tmp/mapped:/v:idmap").split()

    assert said == ["0", "0"]
    assert (podman.world.root / "tmp/mapped/made").stat().st_uid == 0
    assert podman.shown("stat -c %u /v", *maps, "-v", "/tmp/mapped:/v") == "65534"


def test_a_tmpfs_starts_with_the_images_files_unless_told_not_to(podman: Podman) -> None:
    assert "root:x:0" in podman.shown("cat /etc/group; grep ' /etc tmpfs' /proc/mounts >&2", "--tmpfs", "/etc")
    assert podman.shown("ls /home", "--tmpfs", "/home:notmpcopyup") == ""


def test_a_named_volume_outlives_its_containers(podman: Podman) -> None:
    podman.shown("echo kept >/data/file", "-v", "kept:/data")

    assert podman.shown("cat /data/file", "-v", "kept:/data") == "kept"
    podman("volume", "rm", "kept", check=True)


def test_a_device_opens_with_the_access_that_was_asked_for_and_no_other(podman: Podman) -> None:
    podman.world.run("sh", "-c", "[ -e /tmp/kmsg ] || mknod /tmp/kmsg c 1 11", check=True)
    script = "(: </dev/mine) && echo read; (: >>/dev/mine) && echo written"

    for access, said in (("r", ["read"]), ("w", ["written"]), ("rw", ["read", "written"])):
        done = podman.sh(script, "--device", f"/tmp/kmsg:/dev/mine:{access}", "--cap-add", "SYSLOG")
        assert done.stdout.split() == said, done


def test_a_device_node_of_ones_own_making_opens_only_where_it_was_allowed(podman: Podman) -> None:
    script = "mknod /tmp/kmsg c 1 11 && (: >>/tmp/kmsg) && echo open"

    assert podman.sh(script, "--cap-add", "MKNOD").stdout == ""
    assert podman.sh(script, "--cap-add", "MKNOD", "--device-cgroup-rule", "c 1:11 rwm").stdout == "open\n"


def test_a_sysctl_is_set_for_the_container_alone(podman: Podman) -> None:
    script = "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_local_port_range"
    options = ("--sysctl", "kernel.msgmax=12345", "--sysctl", "net.ipv4.ip_local_port_range=2000 3000")

    assert podman.shown(script, *options).split() == ["12345", "2000", "3000"]
    assert podman.world.run("cat", "/proc/sys/kernel/msgmax").stdout.strip() != "12345"


def test_a_limit_of_resources_is_set(podman: Podman) -> None:
    assert podman.shown("ulimit -n; ulimit -Hn", "--ulimit", "nofile=123:456", "--ulimit", "nproc=99:99").split() == [
        "123",
        "456",
    ]


def test_the_cgroup_has_the_limits_that_were_asked_for(podman: Podman) -> None:
    options = ("--memory", "64m", "--pids-limit", "33", "--cpus", "0.5", "--cpuset-cpus", "0")
    podman.background("limited", *options)

    limits = {"memory": "67108864", "pids": "33", "cpu": "50000", "cpuset": "0"}
    assert {of: podman.limit("limited", of) for of in limits} == limits


def test_more_processes_than_allowed_cant_be_started(podman: Podman) -> None:
    done = podman.sh("for n in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo made all", "--pids-limit", "6")

    assert "made all" not in done.stdout
    assert "can't fork" in done.stderr


def test_a_program_that_takes_more_memory_than_allowed_is_killed(podman: Podman) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=200M; echo dd ended with $?; sleep 1000"
    podman.background("big", "--memory", "32m", "--memory-swap", "32m", command=("sh", "-c", script))

    eventually(lambda: "dd ended with 137" in podman.said("logs", "big"))
    assert "oom_kill 1" in podman.limit("big", "oom")


def test_update_changes_the_limits_of_a_running_container(podman: Podman) -> None:
    podman.background("changed", "--memory", "64m")

    podman("update", "--memory", "128m", "--cpus", "0.25", "changed", check=True)

    assert podman.limit("changed", "memory") == str(128 << 20)
    assert podman.limit("changed", "cpu") == "25000"


def test_an_init_program_is_process_one_and_reaps(podman: Podman) -> None:
    podman.background("inited", "--init", command=("sh", "-c", "(sh -c 'sleep 0 & exec true') ; sleep 1000"))

    assert podman.said("exec", "inited", "cat", "/proc/1/comm") == "podman-init"
    eventually(lambda: " Z " not in podman.said("exec", "inited", "ps", "-o", "pid,stat"), what="no zombie left")


def test_no_network_is_loopback_alone_and_the_hosts_network_is_the_hosts(podman: Podman) -> None:
    mine = podman.world.run("readlink", "/proc/self/ns/net").stdout.strip()

    assert podman.shown("ls /sys/class/net") == "lo"
    assert podman.said("run", "--rm", "--network", "host", IMAGE, "readlink", "/proc/self/ns/net") == mine


def test_a_bridge_gives_an_address_and_names(podman: Podman) -> None:
    podman("network", "create", "between", check=True)
    try:
        podman.said(
            "run",
            "--detach",
            "--name",
            "server",
            "--network",
            "between",
            IMAGE,
            "nc",
            "-ll",
            "-p",
            "80",
            "-e",
            "echo",
            "hello",
        )

        answer = eventually(
            lambda: podman("run", "--rm", "--network", "between", IMAGE, "nc", "-w", "2", "server", "80").stdout, 10
        )
        assert answer == "hello\n"
    finally:
        podman.clean()
        podman("network", "rm", "between", check=True)


def test_a_published_port_is_reached_from_the_host(podman: Podman) -> None:
    podman.said("run", "--detach", "--publish", "8088:80", IMAGE, "nc", "-ll", "-p", "80", "-e", "echo", "hello")

    eventually(lambda: podman.world.run("busybox", "nc", "-w", "2", "127.0.0.1", "8088").stdout == "hello\n", 10)


@pytest.mark.parametrize(("option", "namespace"), [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts")])
def test_a_namespace_of_the_host_is_shared_where_asked(podman: Podman, option: str, namespace: str) -> None:
    mine = podman.world.run("readlink", f"/proc/self/ns/{namespace}").stdout.strip()

    assert podman.shown(f"readlink /proc/self/ns/{namespace}") != mine
    assert podman.shown(f"readlink /proc/self/ns/{namespace}", option, "host") == mine


@pytest.mark.parametrize("namespace", ["pid", "ipc", "net", "uts"])
def test_a_namespace_of_another_container_is_shared_where_asked(podman: Podman, namespace: str) -> None:
    podman.background("first", "--ipc", "shareable")
    theirs = podman.said("exec", "first", "readlink", f"/proc/self/ns/{namespace}")
    option = {"net": "--network"}.get(namespace, f"--{namespace}")

    said = podman.said("run", "--rm", option, "container:first", IMAGE, "readlink", f"/proc/self/ns/{namespace}")

    assert said == theirs


def test_a_cgroup_namespace_is_the_hosts_or_private_as_asked(podman: Podman) -> None:
    script = "tail -n 1 /proc/self/cgroup"

    assert podman.shown(script, "--cgroupns", "private").endswith(":/")
    assert "libpod" in podman.shown(script, "--cgroupns", "host")


def test_a_user_namespace_maps_as_asked(podman: Podman) -> None:
    script = "id -u; cat /proc/self/uid_map; touch /tmp/x && stat -c %u /tmp/x /etc/passwd"

    said = podman.shown(script, "--uidmap", "0:300000:5000", "--gidmap", "0:300000:5000").split()

    assert said == ["0", "0", "300000", "5000", "0", "0"]


def test_a_user_namespace_is_found_by_itself(podman: Podman) -> None:
    said = podman.shown("cat /proc/self/uid_map", "--userns", "auto:size=2000").split()

    assert said[0] == "0"
    assert said[2] == "2000"
    assert int(said[1]) >= 500000


def test_a_user_namespace_of_another_container_is_shared_where_asked(podman: Podman) -> None:
    podman.background("mapped", "--uidmap", "0:300000:5000", "--gidmap", "0:300000:5000")
    link = "/proc/self/ns/user"

    assert podman.shown(f"readlink {link}", "--userns", "container:mapped") == podman.said(
        "exec", "mapped", "readlink", link
    )


def test_a_network_namespace_by_its_path_is_joined(podman: Podman) -> None:
    podman.world.run("ip", "netns", "add", "made", check=True)
    podman.world.run("ip", "-n", "made", "link", "add", "one7", "type", "veth", "peer", "two7", check=True)

    said = podman.said("run", "--rm", "--network", "ns:/run/netns/made", IMAGE, "ls", "/sys/class/net")

    assert said.split() == ["lo", "one7", "two7"]


def test_a_container_for_systemd_may_write_its_own_cgroup(podman: Podman) -> None:
    script = "cd /sys/fs/cgroup; [ ! -d systemd ] || cd systemd; mkdir sub && echo made; stat -f -c %T /run"

    assert podman.shown(script, "--systemd", "always", "--tmpfs", "/unused").split() == ["made", "tmpfs"]


def test_the_kernels_interfaces_are_masked_and_read_only_unless_unmasked(podman: Podman) -> None:
    script = "wc -c </proc/keys; ls /proc/acpi | wc -l; (echo 1 >/proc/sys/kernel/msgmax) 2>&1 | grep -c 'Read-only'"

    assert podman.sh(script).stdout.split() == ["0", "0", "1"]
    assert int(podman.shown("wc -l </proc/keys", "--security-opt", "unmask=ALL")) > 0


def test_shared_memory_has_the_size_that_was_asked_for(podman: Podman) -> None:
    assert podman.shown("df -k /dev/shm | awk 'END {print $2}'", "--shm-size", "3m") == "3072"


def test_a_directory_is_run_as_a_root_without_an_image(podman: Podman) -> None:
    podman.world.run("sh", "-c", "mkdir /tmp/plain && tar xf /tmp/image.tar -C /tmp/plain", check=True)

    said = podman.said("run", "--rm", "--network", "none", "--rootfs", "/tmp/plain", "sh", "-c", "echo >/made; id -u")

    assert said == "0"
    assert (podman.world.root / "tmp/plain/made").exists()


def test_descriptors_are_passed_on_where_asked(podman: Podman) -> None:
    script = f"exec 3</etc/hostname; podman run --rm --network none --preserve-fds 1 {IMAGE} sh -c 'cat <&3'"

    assert podman.world.run("sh", "-c", script, check=True).stdout == podman.world.run("cat", "/etc/hostname").stdout


def test_a_container_gets_the_personality_of_a_32_bit_machine(podman: Podman) -> None:
    assert podman.shown("uname -m", "--personality", "LINUX32") == "i686"


def test_an_oom_score_that_is_higher_is_set(podman: Podman) -> None:
    assert podman.shown("cat /proc/self/oom_score_adj", "--oom-score-adj", "500") == "500"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("/etc/notrunnable",), 126),
        (("/etc",), 126),
        (("nosuchprogram",), 127),
        (("/no/such/program",), 127),
    ],
)
def test_a_command_that_cant_be_started_has_the_shells_exit_code(
    podman: Podman, command: tuple[str, ...], code: int
) -> None:
    done = podman("run", "--rm", "--network", "none", IMAGE, *command)

    assert done.returncode == code, done.stderr
    assert command[0] in done.stderr


def test_what_podman_refuses_itself_has_exit_code_125(podman: Podman) -> None:
    assert podman.sh("true", "--memory", "nonsense").returncode == 125
    assert podman.sh("true", "--sysctl", "kernel.no_such_thing=1").returncode not in {0, 1}
    assert podman.shown("echo still") == "still"


def test_a_failed_start_leaves_no_state_and_no_cgroup(podman: Podman) -> None:
    before = os.listdir(podman.state(""))

    podman("run", "--name", "failed", "--network", "none", IMAGE, "nosuchprogram")

    assert os.listdir(podman.state("")) == before
    podman("rm", "failed", check=True)
