"""create, start, state, kill, delete, run and exec of `stockade-runtime`, as an engine sees them."""

from __future__ import annotations

import array
import json
import os
import pty
import select
import signal
import socket
import subprocess
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.bundles import RUNTIME, Runtime, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.kernel
ENDS = ("/bin/sh", "-c", "echo out; echo err >&2; exit 7")
DEV = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
PTS = {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}
WAITS = ("/bin/sh", "-c", "trap 'exit 9' TERM; echo up > /tmp/up; while :; do sleep 0.05; done")


@pytest.fixture
def runtime(public_tmp: Path) -> Iterator[Runtime]:
    """Give the command with a root of its own; what a test leaves is removed."""
    run = Runtime(public_tmp / "state")
    yield run
    if (public_tmp / "state").exists():
        for name in os.listdir(public_tmp / "state"):
            run("delete", "--force", name)


@pytest.fixture
def bundle(public_tmp: Path, rootfs: Path) -> Callable[..., Path]:
    """Write a bundle of a program and what changes in its process."""
    made: list[Path] = []

    def make(*args: str, process: dict[str, Any] | None = None, **linux: Any) -> Path:
        directory = write(public_tmp / f"bundle{len(made)}", rootfs, args=args or WAITS, **linux)
        made.append(directory)
        if process:
            change(directory, lambda config: config["process"].update(process))
        return directory

    return make


def change(directory: Path, how: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((directory / "config.json").read_text())
    how(config)
    (directory / "config.json").write_text(json.dumps(config))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it doesn't come"
        time.sleep(0.01)


def cgroups_of(identity: str) -> list[str]:
    found = []
    for top in Path("/sys/fs/cgroup").iterdir():
        found += [str(path) for path in (top / identity, *top.glob(f"*/{identity}")) if path.exists()]
    return found


def test_a_created_container_has_run_nothing_until_it_is_started(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path
) -> None:
    directory = bundle("/bin/touch", "/tmp/ran")
    runtime.ok("create", "--bundle", directory, "c")
    assert runtime.status("c") == "created"
    assert not (rootfs / "tmp/ran").exists()
    runtime.ok("start", "c")
    wait_for(lambda: runtime.status("c") == "stopped")
    assert (rootfs / "tmp/ran").exists()


def test_the_process_that_waits_is_no_program_of_the_host(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("create", "--bundle", bundle(), "c")
    pid = json.loads(runtime.ok("state", "c"))["pid"]
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:stockade-init")
    assert os.readlink(f"/proc/{pid}/root") == "/"
    # its streams, the socket of start, and nothing else
    assert len(os.listdir(f"/proc/{pid}/fd")) == 4


def test_after_start_nothing_of_ours_is_left_but_the_program(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    def ours() -> set[str]:
        return {pid for pid in os.listdir("/proc") if pid.isdigit() and _is_ours(pid)}

    before = ours()
    runtime.ok("create", "--bundle", bundle(), "c")
    runtime.ok("start", "c")
    wait_for(lambda: ours() <= before)  # the launcher ends a moment after `create`


def _is_ours(pid: str) -> bool:
    try:
        return (
            "stockade" in os.readlink(f"/proc/{pid}/exe")
            or b"stockade-runtime" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
    except OSError:
        return False


def test_streams_of_create_are_the_programs(runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path) -> None:
    command = [*runtime.command, "create", "--bundle", str(bundle("/bin/cat")), "c"]
    reader, writer = os.pipe()
    with (public_tmp / "out").open("w") as out:
        subprocess.run(command, stdin=reader, stdout=out, stderr=out, check=True, timeout=60)
    os.close(reader)
    runtime.ok("start", "c")
    os.write(writer, b"through\n")
    os.close(writer)
    wait_for(lambda: runtime.status("c") == "stopped")
    assert (public_tmp / "out").read_text() == "through\n"


def test_a_program_of_another_user_can_open_its_streams_by_name(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    script = "echo one > /proc/self/fd/1; echo two > /proc/self/fd/2"
    directory = bundle("/bin/sh", "-c", script, process={"user": {"uid": 1000, "gid": 1000}})
    done = subprocess.run(
        [*runtime.command, "run", "--bundle", str(directory), "c"], check=False, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\n", b"two\n")


def test_run_gives_the_programs_output_and_exit_code_and_leaves_nothing(
    runtime: Runtime, bundle: Callable[..., Path]
) -> None:
    done = runtime("run", "--bundle", bundle(*ENDS), "c")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert runtime("state", "c").returncode == 1
    assert not cgroups_of("c")


def test_run_passes_signals_on(runtime: Runtime, bundle: Callable[..., Path], rootfs: Path) -> None:
    with subprocess.Popen([*runtime.command, "run", "--bundle", str(bundle()), "c"]) as running:
        wait_for((rootfs / "tmp/up").exists)
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 9


def test_a_program_that_a_signal_ends_gives_128_and_its_number(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("run", "--detach", "--bundle", bundle("/bin/sleep", "60"), "c")
    done = runtime("exec", "c", "/bin/sh", "-c", "kill -KILL $$")
    assert done.returncode == 128 + signal.SIGKILL


def test_run_can_keep_what_has_stopped(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    assert runtime("run", "--keep", "--bundle", bundle(*ENDS), "c").returncode == 7
    assert runtime.status("c") == "stopped"
    runtime.ok("delete", "c")


def test_the_pid_file_holds_the_pid_of_the_state(
    runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path
) -> None:
    runtime.ok("create", "--bundle", bundle(), "--pid-file", public_tmp / "pid", "c")
    pid = (public_tmp / "pid").read_text()
    assert pid == str(json.loads(runtime.ok("state", "c"))["pid"])
    assert (public_tmp / "pid").stat().st_mode & 0o777 == 0o644
    runtime.ok("start", "c")
    runtime.ok("exec", "--detach", "--pid-file", public_tmp / "second", "c", "/bin/sleep", "60")
    second = (public_tmp / "second").read_text()
    assert Path(f"/proc/{second}/cmdline").read_bytes() == b"/bin/sleep\x0060\x00"
    assert os.readlink(f"/proc/{second}/ns/pid") == os.readlink(f"/proc/{pid}/ns/pid")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nowhere",), 'exec: "nowhere": executable file not found in $PATH'),
        (("/bin/nowhere",), 'exec: "/bin/nowhere": stat /bin/nowhere: no such file or directory'),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied'),
        (("/etc",), 'exec: "/etc": permission denied'),
    ],
)
def test_create_says_that_the_program_cannot_be_executed(
    runtime: Runtime, bundle: Callable[..., Path], args: tuple[str, ...], words: str, public_tmp: Path
) -> None:
    log = public_tmp / "log"
    done = runtime("--log", log, "--log-format", "json", "create", "--bundle", bundle(*args), "c")
    assert done.returncode == 1
    assert words in done.stderr
    assert words in json.loads(log.read_text().splitlines()[-1])["msg"]
    assert runtime("state", "c").returncode == 1
    assert not cgroups_of("c")


def test_a_program_that_went_between_create_and_start_is_an_error_of_start(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path
) -> None:
    (rootfs / "bin/late").write_text("#!/bin/sh\n")
    (rootfs / "bin/late").chmod(0o755)
    runtime.ok("create", "--bundle", bundle("/bin/late"), "c")
    (rootfs / "bin/late").unlink()
    done = runtime("start", "c")
    assert done.returncode == 1
    assert "no such file or directory" in done.stderr
    wait_for(lambda: runtime.status("c") == "stopped")


def test_an_id_is_used_once(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("create", "--bundle", bundle(), "c")
    done = runtime("create", "--bundle", bundle(), "c")
    assert done.returncode == 1
    assert "container with id exists: c" in done.stderr
    assert runtime.status("c") == "created"


def test_a_container_is_started_once(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("create", "--bundle", bundle(), "c")
    runtime.ok("start", "c")
    done = runtime("start", "c")
    assert (done.returncode, "cannot start a container that is already running" in done.stderr) == (1, True)
    runtime.ok("kill", "c", "KILL")
    wait_for(lambda: runtime.status("c") == "stopped")
    done = runtime("start", "c")
    assert (done.returncode, "cannot start a container that has stopped" in done.stderr) == (1, True)


def test_two_starts_at_once_start_it_once(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("create", "--bundle", bundle(), "c")
    null = subprocess.DEVNULL
    both = [subprocess.Popen([*runtime.command, "start", "c"], stdout=null, stderr=null) for _ in range(2)]
    assert sorted(each.wait(20) for each in both) == [0, 1]


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15", "sigterm"])
def test_kill_knows_signals_by_name_and_number(runtime: Runtime, bundle: Callable[..., Path], name: str) -> None:
    runtime.ok("create", "--bundle", bundle(), "c")
    runtime.ok("start", "c")
    wait_for(lambda: runtime("exec", "c", "/bin/test", "-e", "/tmp/up").returncode == 0)
    runtime.ok("kill", "c", name)
    wait_for(lambda: runtime.status("c") == "stopped")


def test_kill_of_what_has_stopped_says_what_engines_look_for(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("run", "--detach", "--bundle", bundle("/bin/true"), "c")
    wait_for(lambda: runtime.status("c") == "stopped")
    done = runtime("kill", "c", "9")
    assert done.returncode == 1
    assert "container not running" in done.stderr
    runtime.ok("kill", "--all", "c", "9")


def test_kill_all_reaches_who_has_left_the_first_process(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    shared = bundle("/bin/sh", "-c", "setsid sleep 61 & exec sleep 62")
    change(shared, lambda config: config["linux"].update(namespaces=[{"type": "mount"}]))
    runtime.ok("run", "--detach", "--bundle", shared, "c")
    wait_for(lambda: _sleeping("61"))
    runtime.ok("kill", "--all", "c", "KILL")
    wait_for(lambda: not _sleeping("61"))
    wait_for(lambda: runtime.status("c") == "stopped")


def test_delete_force_of_a_container_with_the_hosts_pids_kills_all_of_it(
    runtime: Runtime, bundle: Callable[..., Path]
) -> None:
    shared = bundle("/bin/sh", "-c", "setsid sleep 63 & exec sleep 64")
    change(shared, lambda config: config["linux"].update(namespaces=[{"type": "mount"}]))
    runtime.ok("run", "--detach", "--bundle", shared, "c")
    wait_for(lambda: _sleeping("63"))
    runtime.ok("delete", "--force", "c")
    assert not _sleeping("63")
    assert not _sleeping("64")
    assert not cgroups_of("c")


def _sleeping(seconds: str) -> bool:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                return True
        except OSError:
            continue
    return False


def test_what_runs_is_deleted_only_by_force(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("run", "--detach", "--bundle", bundle(), "c")
    pid = json.loads(runtime.ok("state", "c"))["pid"]
    done = runtime("delete", "c")
    assert done.returncode == 1
    assert "cannot delete container c that is not stopped: running" in done.stderr
    runtime.ok("delete", "--force", "c")
    assert not Path(f"/proc/{pid}/root").exists()
    assert not cgroups_of("c")
    runtime.ok("delete", "--force", "c")  # not there: no error
    assert 'container "c" does not exist' in runtime("delete", "c").stderr


def test_what_waits_for_start_can_be_deleted(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("create", "--bundle", bundle(), "c")
    runtime.ok("delete", "c")
    assert not cgroups_of("c")


def test_a_killed_create_leaves_no_program_and_what_it_left_can_be_deleted(
    runtime: Runtime, bundle: Callable[..., Path], rootfs: Path
) -> None:
    directory = bundle("/bin/touch", "/tmp/ran")
    for step in range(12):
        command = [*runtime.command, "create", "--bundle", str(directory), "c"]
        creating = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.004 * step)
        creating.kill()
        creating.wait()
        runtime.ok("delete", "--force", "c")
        assert not cgroups_of("c")
    assert not (rootfs / "tmp/ran").exists()


def test_exec_gives_output_and_exit_code(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("run", "--detach", "--bundle", bundle(), "c")
    done = runtime("exec", "c", *ENDS)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert runtime("exec", "c", "nowhere").returncode == 127
    assert runtime("exec", "c", "/etc/passwd").returncode == 126


def test_exec_takes_what_the_options_say(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("run", "--detach", "--bundle", bundle(), "c")
    options = ("--cwd", "/tmp", "--user", "1000:1001", "-e", "A=b", "-g", "5", "--cap", "CAP_KILL", "--no-new-privs")
    script = "pwd; id; echo $A $PATH; grep -E 'CapBnd|NoNewPrivs' /proc/self/status"
    lines = runtime.ok("exec", *options, "c", "/bin/sh", "-c", script).splitlines()
    assert lines[0] == "/tmp"
    assert lines[1].startswith("uid=1000(app) gid=1001 groups=5")
    assert lines[2:] == ["b /bin", "CapBnd:\t0000000000000020", "NoNewPrivs:\t1"]


def test_exec_takes_a_process_from_a_file(runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path) -> None:
    runtime.ok("run", "--detach", "--bundle", bundle(), "c")
    process: dict[str, Any] = {"cwd": "/home", "args": ["/bin/sh", "-c", "pwd; umask; id -u"], "env": ["PATH=/bin"]}
    process["user"] = {"uid": 1000, "gid": 0, "umask": 0o27}
    (public_tmp / "process.json").write_text(json.dumps(process))
    assert runtime.ok("exec", "--process", public_tmp / "process.json", "c") == "/home\n0027\n1000\n"
    (public_tmp / "process.json").write_text('{"cwd": 3}')
    done = runtime("exec", "--process", public_tmp / "process.json", "c")
    assert done.returncode == 255
    assert "process.json: $.cwd: expected a string" in done.stderr


def test_exec_is_in_the_containers_namespaces_and_groups(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("run", "--detach", "--bundle", bundle(), "c")
    pid = json.loads(runtime.ok("state", "c"))["pid"]
    script = "for kind in pid mnt ipc uts net; do readlink /proc/self/ns/$kind; done; cat /proc/self/cgroup; echo $PPID"
    lines = runtime.ok("exec", "c", "/bin/sh", "-c", script).splitlines()
    assert lines[:5] == [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("pid", "mnt", "ipc", "uts", "net")]
    assert lines[5:-1] == Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert lines[-1] == "0"


def test_exec_needs_a_container_that_runs(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("create", "--bundle", bundle("/bin/true"), "c")
    runtime.ok("start", "c")
    wait_for(lambda: runtime.status("c") == "stopped")
    done = runtime("exec", "c", "/bin/true")
    assert (done.returncode, "cannot exec in a stopped container" in done.stderr) == (255, True)


def test_descriptors_are_passed_on_only_when_asked_for(
    runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path
) -> None:
    (public_tmp / "given").write_text("given")
    script = "ls /proc/self/fd | tr '\\n' ' '; cat <&3"
    said = []
    for extra in ([], ["--preserve-fds", "1"]):
        run = [*runtime.command, "run", *extra, "--bundle", str(bundle("/bin/sh", "-c", script)), "c"]
        with (public_tmp / "out").open("w+") as out:
            shell = ["/bin/sh", "-c", f'exec 3<{public_tmp}/given; exec "$@"', "sh", *run]
            null, err = subprocess.DEVNULL, subprocess.STDOUT
            subprocess.run(shell, check=False, timeout=60, stdin=null, stdout=out, stderr=err)
            out.seek(0)
            said.append(out.read())
    assert said[0].startswith("0 1 2 3 ")  # the last is of the listing
    assert "bad file descriptor" in said[0].lower()
    assert said[1].endswith("given")


def test_a_terminal_goes_to_the_console_socket(runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path) -> None:
    directory = bundle("/bin/sh", "-c", "tty; stty size; read line; echo got $line", process={"terminal": True})
    change(directory, lambda config: config["mounts"].extend([DEV, PTS]))
    change(directory, lambda config: config["process"].update(consoleSize={"height": 33, "width": 99}))
    master = _with_console(
        public_tmp, lambda path: runtime.ok("create", "--console-socket", path, "-b", directory, "c")
    )
    runtime.ok("start", "c")
    os.write(master, b"word\n")
    said = _read_all(master)
    assert "/dev/pts/0" in said
    assert "33 99" in said
    assert "got word" in said


def test_exec_has_a_terminal_of_the_containers(runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path) -> None:
    directory = bundle()
    change(directory, lambda config: config["mounts"].extend([DEV, PTS]))
    runtime.ok("run", "--detach", "-b", directory, "c")
    command = ("exec", "--tty", "--detach", "--console-socket")
    master = _with_console(public_tmp, lambda path: runtime.ok(*command, path, "c", "/bin/sh", "-c", "tty; stty -a"))
    assert "/dev/pts/0" in _read_all(master)


def test_exec_in_the_foreground_relays_the_callers_terminal(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    directory = bundle()
    change(directory, lambda config: config["mounts"].extend([DEV, PTS]))
    runtime.ok("run", "--detach", "-b", directory, "c")
    pid, master = pty.fork()
    if pid == 0:
        os.execv(RUNTIME, [*runtime.command, "exec", "-t", "c", "/bin/sh", "-c", "read x; echo got $x; exit 4"])
    termios.tcflush(master, termios.TCIOFLUSH)
    os.write(master, b"word\n")
    assert "got word" in _read_all(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4


def test_a_terminal_without_a_socket_is_refused_when_nobody_stays(
    runtime: Runtime, bundle: Callable[..., Path]
) -> None:
    done = runtime("create", "--bundle", bundle(process={"terminal": True}), "c")
    assert done.returncode == 1
    assert "cannot allocate tty if" in done.stderr
    done = runtime("create", "--console-socket", "/nowhere", "--bundle", bundle(), "c")
    assert done.returncode == 1
    assert "cannot use console socket" in done.stderr
    assert runtime("state", "c").returncode == 1


def _with_console(directory: Path, action: Callable[[Path], object]) -> int:
    path = directory / "console.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        action(path)
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    rights = array.array("i")
    rights.frombytes(ancillary[0][2][:4])
    return rights[0]


def _read_all(master: int) -> str:
    """Read a terminal up to its end, or for ten seconds."""
    said, deadline = b"", time.monotonic() + 10
    while time.monotonic() < deadline and select.select([master], [], [], 10)[0]:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(master)
    return said.decode()


def test_a_namespace_by_path_is_the_one_that_is_named(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    runtime.ok("run", "--detach", "-b", bundle(), "first")
    pid = json.loads(runtime.ok("state", "first"))["pid"]
    names = {"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}
    shared = [{"type": kind, "path": f"/proc/{pid}/ns/{name}"} for kind, name in names.items()]
    second = bundle("/bin/sh", "-c", "for k in net ipc uts pid; do readlink /proc/self/ns/$k; done; ps | grep -c up")
    change(second, lambda config: config["linux"].update(namespaces=[{"type": "mount"}, *shared]))
    lines = runtime.ok("run", "-b", second, "second").splitlines()
    assert lines[:4] == [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("net", "ipc", "uts", "pid")]
    assert int(lines[4]) >= 1  # the first container's processes are seen


def test_a_user_namespace_by_path_is_joined_with_its_map(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    kinds = [{"type": kind} for kind in ("user", "mount", "pid", "network", "ipc", "uts")]
    first = bundle(namespaces=kinds, uidMappings=ids, gidMappings=ids)
    change(first, lambda config: config["mounts"].append(DEV))
    runtime.ok("run", "--detach", "-b", first, "first")
    pid = json.loads(runtime.ok("state", "first"))["pid"]
    second = bundle("/bin/sh", "-c", "readlink /proc/self/ns/user; cat /proc/self/uid_map; id -u")
    change(second, lambda config: config["mounts"].append(DEV))
    joined = [{"type": "user", "path": f"/proc/{pid}/ns/user"}, *[k for k in kinds if k["type"] != "user"]]
    change(second, lambda config: config["linux"].update(namespaces=joined))
    lines = runtime.ok("run", "-b", second, "second").split("\n")
    assert lines[0] == os.readlink(f"/proc/{pid}/ns/user")
    assert lines[1].split() == ["0", "100000", "65536"]
    assert lines[2] == "0"
    assert runtime.ok("exec", "first", "/bin/sh", "-c", "readlink /proc/self/ns/user; id -u") == f"{lines[0]}\n0\n"


def test_a_namespace_that_is_not_there_is_refused(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    directory = bundle()
    change(directory, lambda c: c["linux"].update(namespaces=[{"type": "mount"}, {"type": "ipc", "path": "/nowhere"}]))
    done = runtime("create", "-b", directory, "c")
    assert done.returncode == 1
    assert "/nowhere" in done.stderr
    assert not cgroups_of("c")


def test_a_filter_is_there_for_the_program_and_for_exec(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    section = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]}
    script = "mkdir /tmp/x; grep Seccomp: /proc/self/status"
    free = runtime("run", "-b", bundle("/bin/sh", "-c", script), "free")
    assert free.stdout == "Seccomp:\t0\n"
    done = runtime("run", "-b", bundle("/bin/sh", "-c", script.replace("/x", "/y"), seccomp=section), "c")
    assert done.stdout == "Seccomp:\t2\n"
    assert "not supported" in done.stderr
    runtime.ok("run", "--detach", "-b", bundle(seccomp=section), "c")
    done = runtime("exec", "c", "/bin/sh", "-c", script.replace("/x", "/z"))
    assert (done.stdout, "not supported" in done.stderr) == ("Seccomp:\t2\n", True)


def test_a_seccomp_listener_is_handed_to_the_agent(
    runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path
) -> None:
    agent = public_tmp / "agent.sock"
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": str(agent),
        "listenerMetadata": "about",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    runtime.ok("create", "-b", bundle("/bin/sleep", "60", seccomp=section), "c")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent))
        listener.listen(1)
        runtime.ok("start", "c")
        connection, _ = listener.accept()
        with connection:
            data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(4))
    told = json.loads(data)
    assert (told["fds"], told["metadata"], told["state"]["id"]) == (["seccompFd"], "about", "c")
    assert told["pid"] == told["state"]["pid"]
    rights = array.array("i")
    rights.frombytes(ancillary[0][2][:4])
    assert os.readlink(f"/proc/self/fd/{rights[0]}") == "anon_inode:seccomp notify"
    os.close(rights[0])


def test_a_listener_that_nobody_takes_stops_the_start(runtime: Runtime, bundle: Callable[..., Path]) -> None:
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": "/nowhere.sock",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    runtime.ok("create", "-b", bundle("/bin/sleep", "60", seccomp=section), "c")
    done = runtime("start", "c")
    assert done.returncode == 1
    assert "/nowhere.sock" in done.stderr
    wait_for(lambda: runtime.status("c") == "stopped")


@pytest.mark.parametrize("count", ["1", "36", "37", "-1"])
def test_descriptors_that_are_not_there_are_refused(runtime: Runtime, bundle: Callable[..., Path], count: str) -> None:
    done = runtime("create", f"--preserve-fds={count}", "--bundle", bundle(), "c")
    assert done.returncode == 1
    assert "--preserve-fds " + count in done.stderr.replace(" is ", " ")
    assert runtime("state", "c").returncode == 1


def test_a_pid_file_is_not_written_through_what_somebody_else_has_left(
    runtime: Runtime, bundle: Callable[..., Path], public_tmp: Path
) -> None:
    victim = public_tmp / "victim"
    victim.write_text("precious")
    for name in ("pid", ".pid"):
        (public_tmp / name).symlink_to(victim)
    runtime.ok("create", "--bundle", bundle(), "--pid-file", public_tmp / "pid", "c")
    assert victim.read_text() == "precious"
    assert (public_tmp / "pid").read_text().isdecimal()
    assert not (public_tmp / "pid").is_symlink()
