"""The process of an engine's container, from config.json to what is seen inside: hooks, privilege, limits, labels.

The command is run as engines run it: create, start, delete as processes of their own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.linux import calls, capabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    Forked = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.kernel

BOOT = Path(__file__).resolve().parents[2] / "sandbox/runtime/boot.py"
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
ADD_KEY = {"x86_64": 248}.get(os.uname().machine, 217)  # asm-generic/unistd.h has 217
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_SETPERM, KEY_SPEC_SESSION_KEYRING = 1, 5, -3
EVERY = list(capabilities.names(capabilities.supported()))
RESOURCE = capabilities.mask(["CAP_SYS_RESOURCE"])


class Runtime:
    """A bundle, and a root directory for its state."""

    def __init__(self, place: Path, rootfs: Path) -> None:
        self.place, self.name = place, f"test-{os.getpid()}-{place.name[-8:]}"
        (place / "bundle").mkdir()
        place.chmod(0o777)
        self.more: tuple[str, ...] = ()
        kinds = ("mount", "pid", "ipc", "uts", "network")
        self.config: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "process": {"cwd": "/", "env": ["PATH=/bin"], "args": ["/bin/sh", "-c", "true"]},
            "root": {"path": str(rootfs)},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/out", "type": "bind", "source": str(place), "options": ["bind", "rw"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in kinds]},
        }

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command; its output goes to a file, as a container that it leaves would hold a pipe open."""
        argv = [sys.executable, "-I", "-S", str(BOOT), "--root", str(self.place / "state"), *arguments]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(argv, stdout=out, stderr=err, stdin=subprocess.DEVNULL, timeout=60, check=False)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(argv, done.returncode, out.read(), err.read())

    def write(self) -> None:
        (self.place / "bundle/config.json").write_text(json.dumps(self.config))

    def create(self) -> subprocess.CompletedProcess[str]:
        self.write()
        return self.command("create", *self.more, "--bundle", str(self.place / "bundle"), self.name)

    def output(self, script: str, **process: Any) -> None:
        """Run a script to its end; what it has to tell goes to files in /out."""
        self.config["process"] |= {"args": ["/bin/sh", "-c", script], **process}
        made = self.create()
        assert made.returncode == 0, made.stderr
        pid = self.pid()
        began = self.command("start", self.name)
        assert began.returncode == 0, began.stderr
        wait(pid)
        self.command("delete", self.name)

    def pid(self) -> int:
        return int(json.loads(self.command("state", self.name).stdout)["pid"])


def wait(pid: int) -> None:
    """Wait for the end of a process that is nobody's child here; as a zombie it has ended."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.005)
    pytest.fail(f"process {pid} does not end")


@pytest.fixture
def runtime(public_tmp: Path, rootfs: Path) -> Any:
    (rootfs / "out").mkdir()
    made = Runtime(public_tmp, rootfs)
    yield made
    made.command("delete", "--force", made.name)


def hook(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


# ---- hooks --------------------------------------------------------------------------------------------------------

POINTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def test_each_hook_runs_at_its_point_with_the_state_of_then(runtime: Runtime) -> None:
    place = runtime.place
    runtime.config["hooks"] = {
        point: [hook(f"cat > {'/out' if point == 'startContainer' else place}/{point}; echo {point} >> "
                     f"{'/out' if point == 'startContainer' else place}/order")]
        for point in POINTS
    }  # fmt: skip
    runtime.config["annotations"] = {"org.example": "x"}

    runtime.output("echo program >> /out/order")

    order = (place / "order").read_text().split()
    assert [name for name in order if name != "program"] == list(POINTS)
    assert order.index("startContainer") < order.index("program")
    states = {point: json.loads((place / point).read_text()) for point in POINTS}
    statuses = {point: state["status"] for point, state in states.items()}
    assert {statuses[point] for point in POINTS[:3]} == {"creating"}
    assert statuses["startContainer"] == "created"
    assert statuses["poststop"] == "stopped"
    assert {state["id"] for state in states.values()} == {runtime.name}
    assert {state["bundle"] for state in states.values()} == {str(place / "bundle")}
    assert states["createContainer"]["annotations"] == {"org.example": "x"}
    assert len({states[point]["pid"] for point in POINTS[:4]}) == 1


def test_hooks_run_in_the_namespaces_that_the_specification_says(runtime: Runtime) -> None:
    place = runtime.place
    # a program of the host's, and before the root changes; and one of the container's, after it
    seen = "(for kind in mnt net uts; do readlink /proc/self/ns/$kind; done)"
    runtime.config["hooks"] = {
        "createRuntime": [hook(f"{seen} > {place}/runtime")],
        "createContainer": [
            hook(f"{seen} > {place}/container; ls {place}/bundle >> {place}/container; umask > {place}/umask")
        ],
        "startContainer": [hook(f"{seen} > /out/start; ls / >> /out/start")],
    }

    runtime.output(f"{seen} > /out/program")

    program = (place / "program").read_text().split()
    assert (place / "runtime").read_text().split() == [
        os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net", "uts")
    ]
    assert (place / "container").read_text().split() == [*program, "config.json"]
    assert int((place / "umask").read_text(), 8) == 0o022
    assert (place / "start").read_text().split()[:3] == program
    assert "out" in (place / "start").read_text().split()


@pytest.mark.parametrize("point", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_before_the_start_undoes_everything(runtime: Runtime, point: str) -> None:
    stopped = runtime.place / "stopped"
    runtime.config["hooks"] = {
        point: [hook("true"), hook("echo no luck; exit 3")],
        "poststop": [hook(f"cat > {stopped}")],
    }

    failed = runtime.create()

    assert failed.returncode != 0
    assert f"error running {point} hook #1: /bin/sh: exit status 3: no luck" in failed.stderr
    assert runtime.command("state", runtime.name).returncode != 0
    assert not list((runtime.place / "state").glob("*"))
    assert json.loads(stopped.read_text())["status"] == "stopped"


def test_a_start_container_hook_that_fails_ends_the_container(runtime: Runtime) -> None:
    runtime.config["hooks"] = {"startContainer": [hook("true"), hook("echo no luck; exit 3")]}
    runtime.config["process"]["args"] = ["/bin/sh", "-c", "echo ran > /out/ran"]
    assert runtime.create().returncode == 0

    failed = runtime.command("start", runtime.name)

    assert failed.returncode != 0
    assert "error running startContainer hook #1: /bin/sh: exit status 3: no luck" in failed.stderr
    assert json.loads(runtime.command("state", runtime.name).stdout)["status"] == "stopped"
    assert not (runtime.place / "ran").exists()


@pytest.mark.parametrize("point", ["createContainer", "createRuntime"])
def test_a_hook_that_takes_too_long_is_killed_with_all_that_it_started(runtime: Runtime, point: str) -> None:
    file = runtime.place / "pid"
    runtime.config["hooks"] = {point: [hook(f"sleep 1000 & readlink /proc/self > {file}; wait", timeout=1)]}
    began = time.monotonic()

    failed = runtime.create()

    assert f"error running {point} hook #0: /bin/sh: timed out and was killed" in failed.stderr
    assert 0.9 < time.monotonic() - began < 15
    sleeping = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _read(path) == b"sleep\x001000\x00"]
    assert [path for path in sleeping if _session_of(path) == file.read_text().strip()] == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _session_of(path: Path) -> str:
    return _read(path.parent / "stat").decode().rpartition(")")[2].split()[3]


def test_a_hook_that_is_not_there_is_named(runtime: Runtime) -> None:
    runtime.config["hooks"] = {"createContainer": [{"path": "/nonexistent/hook"}]}

    failed = runtime.create()

    assert "createContainer hook #0: /nonexistent/hook: can't be executed: No such file or directory" in failed.stderr


def test_a_failure_after_the_start_is_a_warning(runtime: Runtime) -> None:
    runtime.config["hooks"] = {
        "poststart": [hook("exit 5")],
        "poststop": [hook("exit 6"), hook(f"touch {runtime.place}/ran")],
    }
    runtime.config["process"]["args"] = ["/bin/sleep", "1000"]
    assert runtime.create().returncode == 0

    began = runtime.command("start", runtime.name)
    ended = runtime.command("delete", "--force", runtime.name)

    assert (began.returncode, ended.returncode) == (0, 0)
    assert "warning: error running poststart hook #0: /bin/sh: exit status 5" in began.stderr
    assert "warning: error running poststop hook #0: /bin/sh: exit status 6" in ended.stderr
    assert (runtime.place / "ran").exists()


def test_a_start_container_hook_has_no_more_than_the_program(runtime: Runtime) -> None:
    fields = "grep -E '^(Uid|Cap|NoNewPrivs|Seccomp)' /proc/self/status"
    runtime.config["hooks"] = {"startContainer": [hook(f"{fields} > /out/hook; ls /proc/self/fd > /out/fds")]}
    runtime.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    held = ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]

    runtime.output(
        f"{fields} > /out/program",
        user={"uid": 0, "gid": 0},
        capabilities={"bounding": held, "permitted": held, "effective": held},
    )

    seen = (runtime.place / "hook").read_text()
    assert seen == (runtime.place / "program").read_text()
    assert "Seccomp:\t2" in seen
    assert (runtime.place / "fds").read_text().split() == ["0", "1", "2", "3"]


# ---- privilege ----------------------------------------------------------------------------------------------------


def without_resource(runtime: Runtime, script: str, **process: Any) -> Callable[[], Any]:
    """Give a function that runs a container as a caller whose bounding set lacks CAP_SYS_RESOURCE."""

    def run() -> Any:
        calls.prctl(PR_CAPBSET_DROP, capabilities.number("CAP_SYS_RESOURCE"))
        runtime.config["process"] |= {"args": ["/bin/sh", "-c", script], **process}
        made = runtime.create()
        if made.returncode == 0:
            pid = runtime.pid()
            runtime.command("start", runtime.name)
            wait(pid)
        return made

    return run


def all_of(names: list[str]) -> dict[str, list[str]]:
    return dict.fromkeys(("bounding", "effective", "permitted"), names)


def test_a_privileged_container_gets_what_its_caller_has(runtime: Runtime, forked: Forked) -> None:
    script = "grep CapBnd /proc/self/status > /out/seen"

    made = forked(without_resource(runtime, script, capabilities=all_of(EVERY)))

    assert made.returncode == 0, made.stderr
    assert "CAP_SYS_RESOURCE" in made.stderr
    found = int((runtime.place / "seen").read_text().split()[1], 16)
    assert found == capabilities.own().bounding & ~RESOURCE


def test_a_capability_that_was_named_and_cannot_be_had_is_refused(runtime: Runtime, forked: Forked) -> None:
    made = forked(without_resource(runtime, "true", capabilities=all_of(["CAP_CHOWN", "CAP_SYS_RESOURCE"])))

    assert made.returncode != 0
    assert "CAP_SYS_RESOURCE can't be given: the caller does not hold it" in made.stderr
    assert not list((runtime.place / "state").glob("*"))


def test_ambient_capabilities_reach_a_program_that_is_not_root(runtime: Runtime) -> None:
    held = ["CAP_KILL", "CAP_NET_BIND_SERVICE"]
    sets = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), held)

    runtime.output("grep CapEff /proc/self/status > /out/seen", capabilities=sets, user={"uid": 1000, "gid": 1000})

    assert int((runtime.place / "seen").read_text().split()[1], 16) == capabilities.mask(held)


def test_a_caller_with_no_new_privs_can_start_containers(runtime: Runtime, forked: Forked) -> None:
    def run() -> None:
        calls.prctl(PR_SET_NO_NEW_PRIVS, 1)
        runtime.output("grep NoNewPrivs /proc/self/status > /out/seen")

    forked(run)

    assert (runtime.place / "seen").read_text() == "NoNewPrivs:\t1\n"


def test_a_limit_beyond_the_callers_is_refused_with_limit_value_and_remedy(runtime: Runtime, forked: Forked) -> None:
    def run() -> Any:
        resource.setrlimit(resource.RLIMIT_NOFILE, (700, 700))
        limits = [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1048576}]
        return without_resource(runtime, "true", rlimits=limits)()

    made = forked(run)

    assert made.returncode != 0
    assert "limit nofile to 1024, at most 1048576: Operation not permitted" in made.stderr
    assert "the caller has at most 700" in made.stderr


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("apparmorProfile", "docker-default", "the AppArmor profile 'docker-default' can't be enforced"),
        ("selinuxLabel", "system_u:system_r:container_t:s0", "can't be enforced: SELinux is not enabled here"),
    ],
)
def test_a_label_that_the_host_cannot_enforce_is_refused(
    runtime: Runtime, field: str, value: str, message: str
) -> None:
    if os.path.exists("/sys/module/apparmor") or os.path.exists("/sys/fs/selinux"):
        pytest.fail("this host has a security module: the test wants one without")
    runtime.config["process"][field] = value

    refused = runtime.create()

    assert refused.returncode != 0
    assert message in refused.stderr


@pytest.mark.parametrize("new", [True, False])
def test_keys_of_the_callers_session_stay_outside_unless_asked_for(runtime: Runtime, forked: Forked, new: bool) -> None:  # noqa: FBT001
    def run() -> None:
        calls.syscall("keyctl", KEYCTL_JOIN_SESSION_KEYRING, 0)
        key = calls.syscall(ADD_KEY, b"user", b"test-secret", b"x", 1, KEY_SPEC_SESSION_KEYRING)
        calls.syscall(
            "keyctl", KEYCTL_SETPERM, key, 0x3F000000
        )  # for who holds it alone: others of this uid don't see it
        assert "test-secret" in Path("/proc/keys").read_text()
        runtime.more = () if new else ("--no-new-keyring",)
        runtime.output("cat /proc/keys > /out/keys")

    forked(run)

    assert ("test-secret" in (runtime.place / "keys").read_text()) == (not new)


# ---- exec ---------------------------------------------------------------------------------------------------------


def user_namespace(runtime: Runtime) -> None:
    linux = runtime.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 300000, "size": 65536}]


def execed(runtime: Runtime, script: str, **process: Any) -> subprocess.CompletedProcess[str]:
    """Run a script in the container, with a file for the process as engines write one."""
    file = runtime.place / "process.json"
    file.write_text(json.dumps({"cwd": "/", "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], **process}))
    return runtime.command("exec", "--process", str(file), runtime.name)


@pytest.mark.parametrize("user", [False, True])
def test_an_execed_process_has_its_own_limits_scheduling_and_processors(runtime: Runtime, user: bool) -> None:  # noqa: FBT001
    if user:
        user_namespace(runtime)
    runtime.config["process"]["args"] = ["/bin/sleep", "1000"]
    assert runtime.create().returncode == 0
    runtime.command("start", runtime.name)
    last = str(max(os.sched_getaffinity(0)))

    done = execed(
        runtime,
        "ulimit -Hn; cat /proc/self/oom_score_adj; cut -d ' ' -f 19 /proc/self/stat; "
        "grep Cpus_allowed_list /proc/self/status; ionice -p $$",
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
        oomScoreAdj=111,
        scheduler={"policy": "SCHED_BATCH", "nice": 4},
        ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0},
        execCPUAffinity={"initial": "0", "final": last},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["60", "111", "4", f"Cpus_allowed_list:\t{last}", "idle"]


@pytest.mark.parametrize("user", [False, True])
def test_an_execed_process_is_in_the_containers_namespaces_with_its_ids(runtime: Runtime, user: bool) -> None:  # noqa: FBT001
    if user:
        user_namespace(runtime)
    runtime.config["process"]["args"] = ["/bin/sleep", "1000"]
    assert runtime.create().returncode == 0
    runtime.command("start", runtime.name)
    pid = runtime.pid()

    done = execed(
        runtime,
        "for kind in user mnt pid net ipc uts; do readlink /proc/self/ns/$kind; done; id -u; id -g",
        user={"uid": 7, "gid": 8},
    )

    kinds = ("user", "mnt", "pid", "net", "ipc", "uts")
    assert done.stdout.splitlines() == [*(os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds), "7", "8"], (
        done.stderr
    )


def test_an_execed_process_that_names_what_the_caller_lacks_is_refused(runtime: Runtime, forked: Forked) -> None:
    runtime.config["process"]["args"] = ["/bin/sleep", "1000"]
    assert runtime.create().returncode == 0
    runtime.command("start", runtime.name)

    def run() -> Any:
        calls.prctl(PR_CAPBSET_DROP, capabilities.number("CAP_SYS_RESOURCE"))
        few = execed(runtime, "true", capabilities=all_of(["CAP_CHOWN", "CAP_SYS_RESOURCE"]))
        every = execed(runtime, "grep CapBnd /proc/self/status", capabilities=all_of(EVERY))
        return few, every

    few, every = forked(run)

    assert few.returncode == 255
    assert "CAP_SYS_RESOURCE can't be given" in few.stderr
    assert int(every.stdout.split()[1], 16) == capabilities.own().bounding & ~RESOURCE
