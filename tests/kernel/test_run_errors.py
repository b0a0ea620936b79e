"""What goes wrong on real machines is told as step, cause and remedy, in a line or two, with the right exit code."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.linux import calls
from tests.conftest import ROOT
from tests.kernel import arena
from tests.kernel.arena import mount, private_mounts

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable
    from pathlib import Path

    Done = subprocess.CompletedProcess[str]
    Run = Callable[..., Done]
    Forked = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.kernel
STOCKADE = [sys.executable, "-m", "stockade"]
RUN = [*STOCKADE, "run", "--rm"]
TRUE = ["--host", "--", "true"]
MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND = 1, 2, 32, 4096
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
EPERM, EACCES, ENOSYS = 1, 13, 38


def told(done: Done, code: int, *words: str) -> None:
    """Hold a failure against the rules: code, one line of what, at most one of remedy, no traceback, the words."""
    assert done.returncode == code, done
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert lines[0].startswith("stockade: ")
    assert len(lines) == 1 or lines[1].startswith("  remedy: ")
    for word in words:
        assert word in done.stderr, done.stderr


def bind(source: str, target: str, flags: int = 0) -> None:
    mount(source, target, "", MS_BIND)
    if flags:
        mount("", target, "", MS_BIND | MS_REMOUNT | flags)


@pytest.fixture
def changed(forked: Forked, tmp_path: Path) -> Callable[..., Done]:
    """Run a command where the machine is another: `change` is done in a child with private mounts."""

    def run(change: Callable[[], object], runner: Run, command: list[str], **options: Any) -> Done:
        def child() -> Done:
            private_mounts()
            change()
            return runner(command, **options)

        done: Done = forked(child)
        return done

    (tmp_path / "empty").touch(0o644)
    return run


def root(command: list[str], **options: Any) -> Done:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment, **options)


@pytest.fixture
def empty(public_tmp: Path) -> str:
    path = public_tmp / "empty"
    path.touch(0o644)
    return str(path)


# ---- ids


@pytest.mark.parametrize("missing", ["/etc/subuid", "/etc/subgid", "/usr/bin/newuidmap", "nosuid"])
def test_without_subordinate_ids_or_their_helper_the_caller_alone_is_mapped(
    changed: Run, as_user: Run, empty: str, missing: str, unprivileged: pwd.struct_passwd
) -> None:
    change = lambda: bind("/usr/bin", "/usr/bin", MS_NOSUID) if missing == "nosuid" else bind(empty, missing)
    asked = ["--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000"]

    done = changed(change, as_user, [*RUN, "--host", "--", "cat", "/proc/self/uid_map"])
    refused = changed(change, as_user, [*RUN, *asked, *TRUE])

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", str(unprivileged.pw_uid), "1"]
    told(refused, 125, "map", "remedy:")
    cause = {"/usr/bin/newuidmap": "newuidmap is not installed", "nosuid": "nosuid"}.get(
        missing, "subordinate ids (none)"
    )
    assert cause in refused.stderr


def test_the_machine_as_it_is_maps_a_range(as_user: Run) -> None:
    """The weak set-up of all the others here: nothing is in the way."""
    done = as_user([*RUN, "--host", "--", "cat", "/proc/self/uid_map"])

    assert len(done.stdout.splitlines()) == 2


# ---- namespaces that are forbidden


def forbid_user_namespaces() -> None:
    """In a user namespace of our own, whose limit is its own."""
    calls.unshare(CLONE_NEWUSER | CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")


def test_user_namespaces_that_are_switched_off_are_named(changed: Run) -> None:
    told(changed(forbid_user_namespaces, root, [*RUN, *TRUE]), 125, "max_user_namespaces is 0", "sysctl")


def deny(*rules: tuple[str, int, int]) -> None:
    """Load a filter as an outer container has one: system call, errno, bits of its first argument (0 for any)."""
    import pyseccomp

    program = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    program.set_attr(pyseccomp.Attr.CTL_NNP, 0)
    for name, error, bits in rules:
        arguments = [pyseccomp.Arg(0, pyseccomp.MASKED_EQ, bits, bits)] if bits else []
        program.add_rule(pyseccomp.ERRNO(error), name, *arguments)
    program.load()


DOCKER = (
    ("clone3", ENOSYS, 0), ("clone", EPERM, CLONE_NEWUSER), ("unshare", EPERM, 0), ("setns", EPERM, 0),
    ("mount", EPERM, 0), ("pivot_root", EPERM, 0),
)  # fmt: skip


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("rules", [DOCKER, (("unshare", EPERM, 0),), (("mount", EPERM, 0),), (("fsopen", ENOSYS, 0),)])
def test_a_filter_of_an_outer_container_is_named(
    changed: Run, as_user: Run, rules: tuple[tuple[str, int, int], ...], *, user: bool
) -> None:
    done = changed(lambda: deny(*rules), as_user if user else root, [*RUN, *TRUE])

    told(done, 125, "stockade: step ", " of ", "seccomp", "remedy:")


def pretend_apparmor() -> None:
    mount("none", "/proc/sys/kernel", "tmpfs")
    for name, text in (("apparmor_restrict_unprivileged_userns", "1"), ("cap_last_cap", "40")):
        with open(f"/proc/sys/kernel/{name}", "w") as file:
            file.write(text + "\n")


# As Ubuntu's profile unprivileged_userns does: the namespace is made, and what needs a capability in it is denied.
@pytest.mark.parametrize(
    "rules", [(("unshare", EPERM, 0),), (("mount", EACCES, 0),), (("fsopen", EPERM, 0),), (("move_mount", EACCES, 0),)]
)
def test_apparmors_restriction_is_known_by_its_errno_pattern(
    changed: Run, as_user: Run, rules: tuple[tuple[str, int, int], ...]
) -> None:
    def change() -> None:
        pretend_apparmor()
        deny(*rules)

    told(changed(change, as_user, [*RUN, *TRUE]), 125, "step ", "AppArmor", "apparmor_restrict_unprivileged_userns=0")


@pytest.mark.parametrize("user", [False, True])
def test_a_proc_that_is_masked_outside_is_named_and_has_a_way_round(
    changed: Run, as_user: Run, empty: str, *, user: bool
) -> None:
    runner = as_user if user else root
    nested = lambda: bind(empty, "/proc/keys")

    told(changed(nested, runner, [*RUN, *TRUE]), 125, "make a proc", "masks parts", "systempaths=unconfined")
    around = changed(nested, runner, [*RUN, "--pid", "host", "--best-effort", *TRUE])
    assert around.returncode == 0, around.stderr


def test_a_sys_that_is_masked_outside_is_named(changed: Run, as_user: Run) -> None:
    nested = lambda: mount("none", "/sys/firmware", "tmpfs")

    told(changed(nested, as_user, [*RUN, *TRUE]), 125, "make a sysfs", "--network host")


# ---- programs and root file systems


def test_each_way_in_which_a_program_cannot_start_has_its_code(stockade: Run, public_tmp: Path) -> None:
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\xb7\0\x01\0\0\0" + bytes(44)  # of aarch64
    files: dict[str, tuple[bytes, int]] = {
        "noexec": (b"#!/bin/sh\n", 0o644), "text": (b"hello\n", 0o755), "arch": (elf, 0o755), "empty": (b"", 0o755),
        "interpreter": (b"#!/no/such\n", 0o755), "directory": (b"", 0),
    }  # fmt: skip
    for name, (content, bits) in files.items():
        path = public_tmp / name
        if name == "directory":
            path.mkdir()
        else:
            path.write_bytes(content)
            path.chmod(bits)
    wanted = {
        "noexec": (126, "permission denied", "make the file executable"),
        "text": (126, "exec format error", "starts with #!"),
        "arch": (126, "exec format error", "neither a program for this machine"),
        "empty": (126, "exec format error", ""),
        "interpreter": (127, "not found", "interpreter or loader that it names"),
        "directory": (126, "permission denied", ""),
        "missing": (127, "executable file '/x/missing' not found", ""),
        "noexec/below": (127, "not found", ""),
    }
    for name, (code, *words) in wanted.items():
        done = stockade("run", "--rm", "-v", f"{public_tmp}:/x", "--host", "--", f"/x/{name}")
        told(done, code, *words)
    told(stockade("run", "--rm", "--host", "--", "nosuch"), 127, "'nosuch' not found in $PATH")


def test_a_root_file_system_that_is_none_is_refused(stockade: Run, as_user: Run, public_tmp: Path) -> None:
    (public_tmp / "secret/root").mkdir(parents=True)
    (public_tmp / "secret").chmod(0o700)
    for rootfs, words in (
        ("/no/such", ("No such file", "unpacked root file system")),
        ("/etc/passwd", ("Not a directory", "unpacked root file system")),
        ("/", ("the host's own root", "--host")),
        ("", ("empty",)),
    ):
        told(stockade("run", "--rm", "--rootfs", rootfs, "--", "true"), 125, *words)
    told(stockade("run", "--rm", "--", "true"), 125, "--rootfs", "--host")
    unreadable = as_user([*RUN, "--rootfs", str(public_tmp / "secret/root"), "--", "true"])
    told(unreadable, 125, "Permission denied", "namei -l")


def test_a_read_only_root_file_system_must_have_its_mount_points(changed: Run, rootfs: Path) -> None:
    (rootfs / "sys").rmdir()
    done = changed(
        lambda: bind(str(rootfs), str(rootfs), MS_RDONLY), root, [*RUN, "--rootfs", str(rootfs), "--", "true"]
    )

    told(done, 125, "sys", "Read-only file system", "in the root file system first: it can't be written")


def test_a_name_in_use_names_its_holder(stockade: Run) -> None:
    def scenario() -> None:
        command = [*STOCKADE, "run", "--rm", "--name", "taken", "--host", "--", "sh", "-c", "echo up; sleep 60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == b"up\n"
            told(
                stockade("run", "--rm", "--name", "taken", *TRUE), 125, "'taken' is in use by container", "stockade gc"
            )
            first.kill()

    arena.run(scenario)


# ---- limits and places of the machine


def read_only_groups() -> None:
    for name in os.listdir("/sys/fs/cgroup"):
        path = f"/sys/fs/cgroup/{name}"
        if os.path.ismount(path):
            bind(path, path, MS_RDONLY)


def no_groups() -> None:
    mount("none", "/sys/fs/cgroup", "tmpfs")


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize(
    ("change", "cause"), [(read_only_groups, "is on a read-only mount"), (no_groups, "no memory controller")]
)
def test_control_groups_that_cannot_be_had_refuse_limits_and_nothing_else(
    changed: Run, as_user: Run, change: Callable[[], None], cause: str, *, user: bool
) -> None:
    runner = as_user if user else root

    told(
        changed(change, runner, [*RUN, "--memory", "64m", *TRUE]),
        125,
        "memory can't be enforced",
        cause,
        "--best-effort",
    )
    told(changed(change, runner, [*RUN, "--pid", "host", *TRUE]), 125, "--pid host", "--best-effort")
    for options in (["--memory", "64m", "--best-effort"], []):
        done = changed(change, runner, [*RUN, *options, *TRUE])
        assert (done.returncode, done.stderr) == (0, "")


def state_on(options: str, *, fill: bool = False, flags: int = 0) -> None:
    os.makedirs("/run/stockade", mode=0o700, exist_ok=True)
    mount("none", "/run/stockade", "tmpfs", flags, f"mode=700,{options}")
    if fill:
        with suppress(OSError), open("/run/stockade/fill", "wb", 0) as file:
            while True:
                file.write(bytes(4096))


def test_a_full_or_read_only_state_directory_is_named_and_left_clean(changed: Run) -> None:
    def listed(*_: object, **__: object) -> Done:
        done = root([*RUN, "--name", "one", *TRUE])
        done.stdout = " ".join(sorted(set(os.listdir("/run/stockade")) - {"fill", "names"}))
        return done

    for change, cause, remedy in (
        (lambda: state_on("size=64k", fill=True), "No space left on device: /run/stockade", "stockade gc"),
        (lambda: state_on("nr_inodes=4"), "No space left on device: /run/stockade", "stockade gc"),
        (lambda: state_on("size=1m", flags=MS_RDONLY), "Read-only file system: /run/stockade", "mount it writable"),
    ):
        done = changed(change, listed, [])
        told(done, 125, "record can't be written", cause, remedy)
        assert done.stdout == ""


def test_a_disk_that_is_full_at_the_end_costs_no_exit_code(changed: Run) -> None:
    def fill_later(*_: object, **__: object) -> Done:
        script = "echo up; sleep 0.5; exit 7"
        command = [*STOCKADE, "run", "--host", "--", "sh", "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            with suppress(OSError), open("/run/stockade/fill", "wb", 0) as file:
                while True:
                    file.write(bytes(4096))
            return subprocess.CompletedProcess(
                [], process.wait(20), "", process.stderr.read() if process.stderr else ""
            )

    done = changed(lambda: state_on("size=64k"), fill_later, [])

    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.parametrize(
    ("place", "words"), [("/proc", ("/proc", "procfs must be mounted")), ("/dev", ("No such file", "/dev/null"))]
)
@pytest.mark.parametrize("user", [False, True])
def test_a_machine_without_proc_or_dev_is_told(
    changed: Run, as_user: Run, place: str, words: tuple[str, ...], *, user: bool
) -> None:
    gone = lambda: mount("none", place, "tmpfs")

    told(changed(gone, as_user if user else root, [*RUN, *TRUE], stdin=subprocess.PIPE), 125, *words)


def test_a_kernel_that_forbids_executable_memfds_is_told() -> None:
    def scenario() -> None:
        with open("/proc/sys/vm/memfd_noexec", "w") as file:  # of this PID namespace alone
            file.write("2")
        told(root([*RUN, *TRUE]), 125, "launcher", "memfd_noexec")

    arena.run(scenario)


@pytest.mark.parametrize(("number", "limit"), [(resource.RLIMIT_NOFILE, 10), (resource.RLIMIT_NOFILE, 16)])
def test_a_caller_out_of_descriptors_is_told(changed: Run, number: int, limit: int) -> None:
    done = changed(lambda: None, root, [*RUN, *TRUE], preexec_fn=lambda: resource.setrlimit(number, (limit, limit)))

    told(done, 125, "Too many open files", "ulimit -n")


def test_a_caller_out_of_processes_is_told(as_user: Run) -> None:
    done = as_user([*RUN, *TRUE], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1, 1)))

    told(done, 125, "Resource temporarily unavailable", "ulimit -u")


# ---- nested


UNCONFINED = ("--security-opt", "seccomp=unconfined")
WHOLE_PROC = ("--security-opt", "systempaths=unconfined")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("step 1 of", "seccomp=unconfined")),
        (UNCONFINED, ("map uids", "--cap-add SETFCAP")),
        ((*UNCONFINED, "--cap-add", "SETFCAP"), ("a proc", "systempaths=unconfined")),
        ((*UNCONFINED, "--user", "1000"), ("a proc", "systempaths=unconfined")),
        ((*UNCONFINED, *WHOLE_PROC, "--cap-add", "SETFCAP"), ()),
        ((*UNCONFINED, *WHOLE_PROC, "--user", "1000"), ()),
        (("--mode", "privileged"), ()),
    ],
)
def test_a_container_in_a_container_says_what_is_missing_and_works_when_it_has_that(
    stockade: Run, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    outer = [*options, "-v", f"{ROOT}:{ROOT}:ro", "-e", f"PYTHONPATH={ROOT}:{packages}", "--host", "--"]
    inner = ["/usr/bin/python3", "-m", "stockade", "run", "--rm", "--host", "--", "echo", "inner"]

    done = stockade("run", "--rm", *outer, *inner)

    if words:
        told(done, 125, *words)
    else:
        assert (done.stdout, done.stderr) == ("inner\n", "")


# ---- whatever is typed


WORDS = [
    "run", "gc", "--host", "--rootfs", "/", "--", "true", "-it", "-e", "A=B", "=", "", "--memory", "64m", "-1",
    "--cpus", "nan", "inf", "1e400", "--user", ":", "0:0:0", "--uidmap", "0:0:0", "4294967295", "--mount", "9" * 30,
    "type=bind,,", "-v", "::", "/:/", "--tmpfs", "/x:size=", "--ulimit", "nofile=", "--timeout", "--name", "../x",
    "a\nb", "\x1b[31m", "--mode", "/dev/null", "/etc/passwd", "normal", "--security-opt", "seccomp=/etc/passwd",
    "--cap-add", "ALL", "NONE", "--plan", "--spec", "--json", "--help", "--version", "--device", "/dev/null:/dev/x:zz",
    "--env-file", "/proc/self/mem", "--hostname", "x" * 300, "--shm-size", "0", "--pids-limit", "--cpuset-cpus", "9-1",
    "--stop-signal", "SIGNOPE", "ü", "\udcff", "--network", "none", "--pid", "host", "--userns", "keep-id", "--workdir",
    "relative", "/nonexistent", "-w", "-u", "audit",
]  # fmt: skip


def test_whatever_is_typed_there_is_no_traceback(changed: Run) -> None:
    """Command lines through the command's own entry point, in a child, with --plan so that nothing runs."""
    seed = int(os.environ.get("STOCKADE_FUZZ_SEED", "1"))

    def fuzz(*_: object, **__: object) -> Done:
        chance = random.Random(seed)
        program = (
            "import sys, io, pickle\n"
            "from stockade.cli import main\n"
            "for argv in pickle.load(sys.stdin.buffer):\n"
            "    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()\n"
            "    try: code = main(argv)\n"
            "    except SystemExit as error: code = error.code\n"
            "    except BaseException as error: code = repr(error)\n"
            "    said = sys.stderr.getvalue()\n"
            "    bad = code not in (0, 1, 2, 3, 4, 125, 126, 127) or 'Traceback' in said or '\\x1b' in said\n"
            "    if bad: print(ascii(argv), code, ascii(said[-600:]), file=sys.__stdout__)\n"
        )
        import pickle

        lines = [["run", "--plan", *chance.choices(WORDS, k=chance.randint(0, 7))] for _ in range(1500)]
        lines += [chance.choices([word for word in WORDS if word not in {"audit", "gc"}], k=1) for _ in range(50)]
        done = subprocess.run(
            [sys.executable, "-c", program], input=pickle.dumps(lines), capture_output=True, check=False, cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
        )  # fmt: skip
        return subprocess.CompletedProcess([], done.returncode, done.stdout.decode(), done.stderr.decode())

    done = changed(lambda: state_on("size=4m"), fuzz, [])

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
