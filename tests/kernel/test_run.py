"""`stockade run` as a user meets it: the three modes, streams, exit codes, limits, errors. Each asserts from inside."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.kernel
MODES = Path(__file__).resolve().parents[2] / "profiles/modes"
STOCKADE = [sys.executable, "-m", "stockade"]


def status(text: str, field: str) -> str:
    """Give a field of /proc/PID/status."""
    found = re.search(rf"^{field}:\s*(.*)$", text, re.MULTILINE)
    assert found is not None, text
    return found.group(1)


def test_normal_mode_is_root_inside_and_nobody_outside(stockade: Run, rootfs: Path) -> None:
    done = stockade("run", "--rm", "--rootfs", str(rootfs), "cat", "/proc/self/status", "/proc/self/uid_map")

    assert done.returncode == 0, done.stderr
    assert status(done.stdout, "Uid").split() == ["0"] * 4
    assert status(done.stdout, "NoNewPrivs") == "1"
    assert status(done.stdout, "Seccomp") == "2"
    assert {status(done.stdout, f"Cap{name}") for name in ("Prm", "Eff", "Bnd")} == {"00000000000004fb"}
    assert int(done.stdout.split()[-2]) >= 100000


def test_privileged_mode_has_what_the_caller_has(stockade: Run, rootfs: Path) -> None:
    done = stockade("run", "--rm", "--mode", "privileged", "--rootfs", str(rootfs), "cat", "/proc/self/status")

    with open("/proc/self/status", encoding="ascii") as own:
        assert status(done.stdout, "CapEff") == status(own.read(), "CapEff")
    assert status(done.stdout, "Seccomp") == "0"


def test_rootless_mode_has_no_capability_in_any_set(as_user: Run, user_rootfs: Path) -> None:
    done = as_user([*STOCKADE, "run", "--rm", "--rootfs", str(user_rootfs), "cat", "/proc/self/status"])

    assert done.returncode == 0, done.stderr
    for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert int(status(done.stdout, f"Cap{name}"), 16) == 0
    assert status(done.stdout, "Seccomp") == "2"


def test_a_mode_of_ones_own_is_a_file(stockade: Run, rootfs: Path) -> None:
    text = (MODES / "normal.toml").read_text()
    own = rootfs.parent / "mode.toml"
    own.write_text(
        re.sub(r'"CAP_CHOWN",\s*', "", text).replace("no_new_privileges = true", "no_new_privileges = false")
    )

    done = stockade("run", "--rm", "--mode", str(own), "--rootfs", str(rootfs), "cat", "/proc/self/status")

    assert done.returncode == 0, done.stderr
    assert status(done.stdout, "CapEff") == "00000000000004fa"
    assert status(done.stdout, "NoNewPrivs") == "0"


def test_userns_host_is_root_of_the_host(stockade: Run, rootfs: Path) -> None:
    done = stockade("run", "--rm", "--userns", "host", "--rootfs", str(rootfs), "cat", "/proc/self/uid_map")

    assert done.stdout.split() == ["0", "0", "4294967295"]


@pytest.mark.parametrize(
    ("option", "field", "bits"),
    [
        ("--cap-bounding=CAP_KILL", "CapBnd", 1 << 5),
        ("--cap-permitted=CAP_KILL", "CapPrm", 1 << 5),
        ("--cap-effective=CAP_KILL", "CapEff", 1 << 5),
    ],
)
def test_a_set_that_is_named_is_that_set(stockade: Run, rootfs: Path, option: str, field: str, bits: int) -> None:
    options = {"CapBnd": [], "CapPrm": ["--cap-effective=CAP_KILL"], "CapEff": ["--cap-permitted=CAP_KILL"]}[field]
    if field == "CapBnd":
        options = ["--cap-effective=CAP_KILL", "--cap-permitted=CAP_KILL"]

    done = stockade("run", "--rm", option, *options, "--rootfs", str(rootfs), "cat", "/proc/self/status")

    assert done.returncode == 0, done.stderr
    assert int(status(done.stdout, field), 16) == bits


def test_ambient_capabilities_reach_a_user_who_is_not_root(stockade: Run, rootfs: Path) -> None:
    sets = [f"--cap-{name}=CAP_NET_BIND_SERVICE" for name in ("permitted", "effective", "inheritable", "ambient")]

    done = stockade("run", "--rm", "--user", "1000", *sets, "--rootfs", str(rootfs), "cat", "/proc/self/status")

    assert done.returncode == 0, done.stderr
    assert status(done.stdout, "CapAmb") == status(done.stdout, "CapEff") == "0000000000000400"


def test_the_host_root_shows_programs_and_nothing_else_of_the_host(stockade: Run) -> None:
    hidden = "/etc/shadow /etc/ssh /etc/ssl/private /var/lib"
    script = f"ls / /root /home /tmp {hidden} 2>&1; touch /usr/x 2>&1; python3 -c 'print(6*7)'"

    done = stockade("run", "--rm", "--host", "--", "sh", "-c", script)

    assert done.returncode == 0
    assert "42" in done.stdout
    assert "/usr/x': Read-only file system" in done.stdout
    for path in hidden.split():
        assert f"cannot access '{path}'" in done.stdout


@pytest.mark.parametrize("user", ["0", "1000", "app"])
@pytest.mark.parametrize("mode", ["normal", "privileged"])
def test_the_streams_can_be_opened_by_name_as_any_user(stockade: Run, rootfs: Path, mode: str, user: str) -> None:
    script = "echo out >/dev/stdout; echo err >/dev/stderr; echo fd >/proc/self/fd/1; cat /dev/stdin"

    done = stockade(
        "run", "--rm", "-i", "--mode", mode, "--user", user, "--rootfs", str(rootfs), "sh", "-c", script, input="in\n"
    )

    assert (done.stdout, done.stderr) == ("out\nfd\nin\n", "err\n")


@pytest.mark.parametrize("options", [(), ("--user", "1000"), ("--userns", "nomap"), ("--userns", "keep-id")])
def test_the_streams_of_a_rootless_container_can_be_opened_by_name(as_user: Run, options: tuple[str, ...]) -> None:
    script = "echo out >/dev/stdout; echo err >/proc/self/fd/2; cat /dev/stdin"

    done = as_user([*STOCKADE, "run", "--rm", "-i", *options, "--host", "--", "sh", "-c", script], input="in\n")

    assert (done.stdout, done.stderr) == ("out\nin\n", "err\n")


def test_a_file_on_stdout_can_be_opened_by_name_and_keeps_its_owner(
    stockade: Run, rootfs: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    with target.open("w") as file:
        done = stockade(
            *("run", "--rm", "--user", "1000", "--rootfs", str(rootfs), "sh", "-c", "echo hi >>/dev/stdout"),
            stdout=file, stderr=subprocess.PIPE, capture_output=False,
        )  # fmt: skip

    assert done.stderr == ""
    assert target.read_text() == "hi\n"
    assert target.stat().st_uid == 0


def test_output_of_a_megabyte_and_more_comes_through_whole(stockade: Run, rootfs: Path) -> None:
    done = stockade("run", "--rm", "--rootfs", str(rootfs), "seq", "1000000")

    assert done.stdout == "".join(f"{number}\n" for number in range(1, 1000001))


def test_a_reader_that_goes_away_ends_the_program(rootfs: Path) -> None:
    command = [*STOCKADE, "run", "--rm", "--rootfs", str(rootfs), "yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(10) in {1, 128 + 13}  # busybox reports EPIPE itself


@pytest.mark.parametrize("init", [(), ("--init",)])
@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_exit_code_is_the_programs(stockade: Run, rootfs: Path, code: int, init: tuple[str, ...]) -> None:
    done = stockade("run", "--rm", *init, "--rootfs", str(rootfs), "sh", "-c", f"exit {code}")

    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(("name", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139)])
def test_a_program_that_a_signal_ends_gives_128_and_the_signal(
    stockade: Run, rootfs: Path, name: str, code: int
) -> None:
    done = stockade("run", "--rm", "--init", "--rootfs", str(rootfs), "sh", "-c", f"kill -{name} $$; sleep 5")

    assert done.returncode == code, done.stderr


def test_what_is_not_there_is_127_and_what_is_no_program_126(stockade: Run, rootfs: Path) -> None:
    missing = stockade("run", "--rm", "--rootfs", str(rootfs), "nosuch")
    data = stockade("run", "--rm", "--rootfs", str(rootfs), "/etc/passwd")

    assert (missing.returncode, data.returncode) == (127, 126)
    assert "executable file 'nosuch' not found in $PATH" in missing.stderr
    assert "permission denied" in data.stderr


def test_a_deadline_ends_the_whole_tree(stockade: Run, rootfs: Path) -> None:
    tag = f"7{os.getpid()}1"
    script = (
        f"trap '' TERM INT HUP; (setsid sh -c 'trap \"\" TERM; sleep {tag}' &) ; (setsid sleep {tag} &) ; sleep {tag}"
    )
    before = time.monotonic()

    done = stockade("run", "--rm", "--timeout", "0.7", "--rootfs", str(rootfs), "sh", "-c", script)

    assert done.returncode == 137
    assert "killed after 0.7 s (--timeout)" in done.stderr
    assert time.monotonic() - before < 5
    assert subprocess.run(["pgrep", "-f", f"sleep {tag}"], capture_output=True, check=False).stdout == b""


def test_a_deadline_ends_the_tree_of_a_container_that_shares_the_hosts_processes(stockade: Run, rootfs: Path) -> None:
    tag = f"7{os.getpid()}2"
    options = ("--pid", "host", "--userns", "host", "--timeout", "0.7")

    done = stockade(
        "run", "--rm", *options, "--rootfs", str(rootfs), "sh", "-c", f"(setsid sleep {tag} &) ; sleep {tag}"
    )

    assert done.returncode == 137, done.stderr
    assert subprocess.run(["pgrep", "-f", f"sleep {tag}"], capture_output=True, check=False).stdout == b""


def test_limits_hold_and_are_named(stockade: Run, rootfs: Path) -> None:
    script = "head -c 200000000 /dev/zero | tail -c 199999999 >/dev/null"

    done = stockade(
        "run", "--rm", "--json", "--memory", "32m", "--pids-limit", "10", "--cpus", "0.5", "--rootfs", str(rootfs),
        "sh", "-c", script,
    )  # fmt: skip

    report = json.loads(done.stderr.splitlines()[-1])
    assert report["used"]["oom_kills"] >= 1
    assert report["ended_by"] == "out-of-memory"
    for limit, file in (("memory", "memory"), ("pids-limit", "pids.max"), ("cpus", "cpu")):
        assert file in report["enforced"][limit]
    assert not os.path.exists(os.path.dirname(report["enforced"]["pids-limit"]))


def test_a_limit_that_cannot_be_had_refuses_the_launch_unless_best_effort_is_asked_for(as_user: Run) -> None:
    command = [*STOCKADE, "run", "--rm", "--memory", "64m"]

    refused = as_user([*command, "--host", "--", "true"])
    tried = as_user([*command, "--best-effort", "--json", "--host", "--", "true"])

    assert refused.returncode == 125
    assert "memory can't be enforced" in refused.stderr
    assert "--best-effort" in refused.stderr
    assert tried.returncode == 0, tried.stderr
    assert "memory" in json.loads(tried.stderr.splitlines()[-1])["not_enforced"]


def test_a_terminal_is_the_containers_own_with_the_size_of_ours(rootfs: Path) -> None:
    command = [*STOCKADE, "run", "--rm", "-it", "--rootfs", str(rootfs), "sh", "-c"]
    script = "tty; stty size; ls -l /dev/console | cut -c1; ps -o sid= | head -1; read x; echo got-$x"
    pid, master = pty.fork()
    if pid == 0:
        os.execv(command[0], [*command, script])
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    said = b""
    sent = False
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.5)[0]:
            if b"\n" in said and not sent:
                os.write(master, b"word\r")
                sent = True
            continue
        try:
            chunk = os.read(master, 4096)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    os.waitpid(pid, 0)
    text = said.decode()
    assert "/dev/pts/0" in text
    assert "33 77" in text
    assert "\nc\r\n" in text
    assert "got-word" in text


def test_init_is_process_1_and_reaps(stockade: Run, rootfs: Path) -> None:
    script = "cat /proc/1/comm; (sleep 0.1 &) ; sleep 0.4; ps -o stat= | grep -c Z"

    done = stockade("run", "--rm", "--init", "--rootfs", str(rootfs), "sh", "-c", script)

    assert done.stdout.split() == ["stockade-init", "0"]


def test_init_has_the_filter_and_the_sets_of_the_program(stockade: Run, rootfs: Path) -> None:
    done = stockade("run", "--rm", "--init", "--rootfs", str(rootfs), "cat", "/proc/1/status", "/proc/self/status")

    halves = done.stdout.split("Name:")[1:]
    for field in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb", "Seccomp", "NoNewPrivs"):
        assert status(halves[0], field) == status(halves[1], field)


def test_a_signal_to_us_is_a_signal_to_the_program(rootfs: Path) -> None:
    command = [
        *STOCKADE,
        "run",
        "--rm",
        "--rootfs",
        str(rootfs),
        "sh",
        "-c",
        "trap 'exit 9' USR1; echo up; sleep 9 & wait",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(10)
        assert process.wait(10) == 9


def test_a_request_to_end_is_the_signal_that_was_chosen(rootfs: Path) -> None:
    script = "trap 'exit 9' QUIT; trap 'exit 8' TERM; echo up; sleep 9 & wait"
    command = [*STOCKADE, "run", "--rm", "--stop-signal", "QUIT", "--rootfs", str(rootfs), "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(10) == 9


def test_volumes_tmpfs_and_read_only(stockade: Run, rootfs: Path, public_tmp: Path) -> None:
    data = public_tmp / "data"
    data.mkdir(mode=0o777)
    data.chmod(0o777)
    script = "touch /rw/made; touch /ro/x; touch /x; touch /scratch/y && echo scratch; df /scratch | tail -1"

    done = stockade(
        "run", "--rm", "--read-only", "-v", f"{data}:/rw", "-v", f"{data}:/ro:ro", "--tmpfs", "/scratch:size=1m",
        "--rootfs", str(rootfs), "sh", "-c", script,
    )  # fmt: skip

    assert (data / "made").exists()
    assert "/ro/x: Read-only file system" in done.stderr
    assert "/x: Read-only file system" in done.stderr
    assert "scratch\n" in done.stdout
    assert " 1024 " in done.stdout


def test_an_id_mapped_volume_belongs_to_the_container_and_a_plain_one_to_nobody(
    stockade: Run, rootfs: Path, public_tmp: Path
) -> None:
    data = public_tmp / "data"
    data.mkdir(mode=0o755)
    command = ("--rootfs", str(rootfs), "sh", "-c", "stat -c %u /v; touch /v/made && stat -c %u /v/made")

    plain = stockade("run", "--rm", "-v", f"{data}:/v", *command)
    shifted = stockade("run", "--rm", "-v", f"{data}:/v:idmap", *command)

    assert plain.stdout == "65534\n"
    assert "Permission denied" in plain.stderr
    assert shifted.stdout == "0\n0\n", shifted.stderr
    assert (data / "made").stat().st_uid == 0


def test_an_id_mapped_volume_is_refused_where_it_cannot_be_had(
    stockade: Run, as_user: Run, rootfs: Path, public_tmp: Path
) -> None:
    option = f"type=bind,src={public_tmp},dst=/v,idmap"

    unmapped = stockade("run", "--rm", "--userns", "host", "--mount", option, "--rootfs", str(rootfs), "true")
    unprivileged = as_user([*STOCKADE, "run", "--rm", "--mount", option, "--host", "true"])

    assert (unmapped.returncode, unprivileged.returncode) == (125, 125)
    assert "idmap shifts ids by the container's map, and it has none" in unmapped.stderr
    assert "id-mapped mounts need Linux 5.12 and CAP_SYS_ADMIN" in unprivileged.stderr


def test_a_read_only_bind_is_read_only_in_its_submounts(stockade: Run, rootfs: Path, public_tmp: Path) -> None:
    below = public_tmp / "outer" / "below"
    below.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "x", str(below)], check=True)
    try:
        done = stockade(
            "run", "--rm", "-v", f"{public_tmp}/outer:/v:ro", "--rootfs", str(rootfs), "touch", "/v/below/x"
        )
    finally:
        subprocess.run(["umount", str(below)], check=True)

    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize(("propagation", "seen"), [("rslave", "below\n"), ("rprivate", "")])
def test_a_slave_volume_follows_the_hosts_mounts_and_a_private_one_does_not(
    user_rootfs: Path, public_tmp: Path, as_user: Run, propagation: str, seen: str
) -> None:
    """As a user: the copy is made inside, of mounts that the kernel has made slaves."""
    outer = public_tmp / "outer"
    (outer / "place").mkdir(parents=True)
    script = "echo up; for i in $(seq 50); do ls /v/place; [ -e /v/place/below ] && exit; sleep 0.1; done"
    volume = f"{outer}:/v:{propagation}"
    command = [*STOCKADE, "run", "--rm", "-v", volume, "--rootfs", str(user_rootfs), "sh", "-c", script]
    mounting = f"sleep 1; mount -t tmpfs x {outer}/place && touch {outer}/place/below"
    subprocess.run(["mount", "--bind", str(outer), str(outer)], check=True)
    subprocess.run(["mount", "--make-rshared", str(outer)], check=True)
    try:
        with subprocess.Popen(["sh", "-c", mounting]):
            done = as_user(command)
    finally:
        subprocess.run(["umount", "-R", str(outer)], check=True)

    assert done.stdout == f"up\n{seen}", done.stderr


def test_spec_and_plan_need_no_privilege_and_change_nothing(as_user: Run) -> None:
    spec = as_user([*STOCKADE, "run", "--spec", "--host", "--", "true"])
    plan = as_user([*STOCKADE, "run", "--plan", "--host", "--", "true"])

    config = json.loads(spec.stdout)
    assert config["ociVersion"].startswith("1.1")  # crun of Debian 12 says "unknown version" to 1.2
    assert config["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert plan.stdout.splitlines()[0].startswith("  1  clone a child with new namespaces: user")
    assert "execute 'true'" in plan.stdout


def test_the_spec_runs_with_another_runtime(stockade: Run, rootfs: Path, tmp_path: Path) -> None:
    spec = json.loads(
        stockade("run", "--spec", "--userns", "host", "--rootfs", str(rootfs), "sh", "-c", "id -u").stdout
    )
    # libseccomp can't tell families of socket(2) apart behind i386's socketcall(2), and refuses to try.
    spec["linux"]["seccomp"]["architectures"] = ["SCMP_ARCH_X86_64"]
    (tmp_path / "config.json").write_text(json.dumps(spec))

    done = subprocess.run(
        ["runc", "--root", str(tmp_path / "state"), "run", "--bundle", str(tmp_path), f"t{os.getpid()}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_container_that_was_not_to_be_kept_leaves_nothing(stockade: Run, rootfs: Path) -> None:
    before = set(os.listdir("/run/stockade")) if os.path.isdir("/run/stockade") else set()
    stockade("run", "--rm", "--name", "gone", "--memory", "64m", "--rootfs", str(rootfs), "true")

    assert set(os.listdir("/run/stockade")) - before <= {"names"}


def test_a_name_can_be_taken_once(rootfs: Path, stockade: Run) -> None:
    name = f"once-{os.getpid()}"
    command = [*STOCKADE, "run", "--rm", "--name", name, "--rootfs", str(rootfs), "sh", "-c", "echo up; sleep 5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        second = stockade("run", "--rm", "--name", name, "--rootfs", str(rootfs), "true")
        first.kill()

    assert second.returncode == 125
    assert f"the name '{name}' is in use" in second.stderr
    assert name in stockade("gc").stdout
    assert stockade("run", "--rm", "--name", name, "--rootfs", str(rootfs), "true").returncode == 0


def test_a_single_uid_map_is_a_first_class_path(
    user_rootfs: Path, as_user: Run, unprivileged: pwd.struct_passwd
) -> None:
    """Without newuidmap in sight: its directory is empty for this caller."""
    uid = unprivileged.pw_uid

    done = as_user(
        [
            *STOCKADE, "run", "--rm", "--uidmap", f"0:{uid}:1", "--gidmap", f"0:{unprivileged.pw_gid}:1",
            "--rootfs", str(user_rootfs), "sh", "-c", "id -u; cat /proc/self/uid_map; touch /x && echo wrote",
        ]
    )  # fmt: skip

    assert done.stdout.split() == ["0", "0", str(uid), "1", "wrote"], done.stderr


def test_a_tmpfs_is_noexec_unless_exec_is_asked_for(stockade: Run, rootfs: Path) -> None:
    script = "cp /bin/busybox /a/true && cp /bin/busybox /b/true && /b/true && ! /a/true"
    done = stockade("run", "--rm", "--rootfs", str(rootfs), "--tmpfs", "/a", "--tmpfs", "/b:exec", "sh", "-c", script)

    assert done.returncode == 0, done.stderr
    assert "Permission denied" in done.stderr


#: as tini and other inits do it
WAITS = "s.pthread_sigmask(s.SIG_BLOCK, {15}); s.sigwaitinfo({15}); raise SystemExit(7)"


@pytest.mark.parametrize(
    ("options", "program", "code"),
    [
        ([], "exec sleep 60", 143),
        (["--init"], "exec sleep 60", 143),
        (["--stop-signal", "QUIT"], "exec sleep 60", 131),
        ([], "trap 'exit 7' TERM; echo; while :; do sleep 0.01; done", 7),
        (["--init"], "trap 'exit 7' TERM; echo; while :; do sleep 0.01; done", 7),
        (["--stop-signal", "USR1"], "trap 'exit 7' USR1; echo; while :; do sleep 0.01; done", 7),
        ([], "trap '' TERM; echo; sleep 0.3; exit 7", 7),
        ([], f"exec python3 -c 'import signal as s; {WAITS}'", 7),
    ],
)
def test_a_signal_does_to_the_first_process_what_it_does_to_any(options: list[str], program: str, code: int) -> None:
    """The kernel itself drops what the first process of a PID namespace has no handler for: TERM would do nothing."""
    argv = [*STOCKADE, "run", "--rm", *options, "--host", "sh", "-c", f"echo; {program}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=MODES.parents[1]) as running:
        assert running.stdout is not None
        for _ in range(program.count("echo") + 1):
            running.stdout.readline()
        if "exec" in program:
            time.sleep(0.2)
        running.terminate()

        assert running.wait(10) == code


@pytest.mark.parametrize("stream", ["/dev/stdout", "/proc/self/fd/2"])
def test_a_server_opens_its_log_by_name_after_it_has_become_another_user(stream: str, rootfs: Path) -> None:
    """As PHP and Apache do; nginx also gives its log to its workers' user when it reopens it."""
    script = f"chown -L app {stream} && su -s /bin/sh nobody -c 'echo logged >{stream}'"
    argv = [*STOCKADE, "run", "--rm", "--rootfs", str(rootfs), "sh", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=MODES.parents[1])

    assert done.returncode == 0, done.stderr
    assert "logged\n" in done.stdout + done.stderr


def test_a_users_container_may_open_its_log_as_another_user_too(as_user: Run, user_rootfs: Path) -> None:
    script = "su -s /bin/sh nobody -c 'echo logged >/dev/stdout'"
    done = as_user([*STOCKADE, "run", "--rm", "--mode", "normal", "--rootfs", str(user_rootfs), "sh", "-c", script])

    assert done.stdout == "logged\n", done.stderr


def test_a_device_may_be_used_only_as_was_said(stockade: Run, as_user: Run, rootfs: Path, user_rootfs: Path) -> None:
    """With an own user namespace too, where nobody can make nodes but the one that is given could be written."""
    script = "exec 3</dev/mine && ! (: >/dev/mine) 2>/dev/null && echo held"
    device = ["--device", "/dev/fuse:/dev/mine:r"]  # anyone may open it
    done = stockade("run", "--rm", *device, "--rootfs", str(rootfs), "sh", "-c", script)
    rootless = as_user([*STOCKADE, "run", "--rm", *device, "--rootfs", str(user_rootfs), "sh", "-c", script])

    assert done.stdout == "held\n", done.stderr
    assert rootless.stdout == "held\n" or "devices can't be enforced" in rootless.stderr


def test_the_callers_umask_spoils_no_record(as_user: Run) -> None:
    script = 'umask 0777 && "$@" run --host true && "$@" gc'
    done = as_user(["sh", "-c", script, "sh", *STOCKADE])

    assert done.returncode == 0, done.stderr


def test_an_output_that_takes_no_more_is_told_as_that() -> None:
    with open("/dev/full", "wb") as full:
        argv = [*STOCKADE, "run", "--rm", "--host", "sh", "-c", "echo lost; sleep 9"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=MODES.parents[1])

    assert done.returncode == 125
    assert "copying the program's standard streams: No space left on device\n  remedy: " in done.stderr
