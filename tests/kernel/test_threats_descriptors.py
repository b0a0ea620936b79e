"""What the caller has must not reach a payload: descriptors, working directory, terminal, environment, keys, programs.

Each attempt is also made where nothing stands in its way, and succeeds there.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from stockade import Sandbox
from stockade.sandbox import api
from stockade.sandbox.launch import LAUNCHER
from tests.kernel import probes
from tests.kernel.probes import CONFINED, INSIDE, MODES, Ways

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.probes import Run

pytestmark = pytest.mark.kernel

EVERY_MODE = pytest.mark.parametrize("mode", MODES)
WITH_AND_WITHOUT_INIT = pytest.mark.parametrize("init", [(), ("--init",)], ids=["plain", "init"])


@pytest.fixture
def ways(stockade: Run, as_user: Run, unprivileged: pwd.struct_passwd) -> Ways:
    return Ways(stockade, as_user, unprivileged)


@pytest.fixture
def secret(public_tmp: Path) -> Path:
    """Give a file of the host that everyone could read who gets there."""
    path = public_tmp / "secret"
    path.write_text("of the host")
    return path


@pytest.fixture
def leaked(secret: Path) -> Iterator[dict[str, Any]]:
    """Give options of subprocess with which descriptors 77, of the secret's directory, and 200, of the secret, leak."""
    here, file = (os.open(path, os.O_RDONLY) for path in (secret.parent, secret))

    def leak() -> None:
        os.dup2(here, 77)
        os.dup2(file, 200)

    yield {"close_fds": False, "preexec_fn": leak}
    os.close(here)
    os.close(file)


@EVERY_MODE
@WITH_AND_WITHOUT_INIT
def test_no_descriptor_above_2_is_inherited(
    ways: Ways, leaked: dict[str, Any], mode: str, init: tuple[str, ...]
) -> None:
    found = ways.probe(mode, "fds", options=init, **leaked)

    assert found["fds"] == ""


def test_a_runtime_that_closes_nothing_leaks_descriptors(leaked: dict[str, Any]) -> None:
    bwrap = ["bwrap", "--bind", "/", "/", "--unshare-all", probes.probe(), "fds"]

    assert {"77", "200"} <= set(probes.outside(bwrap, **leaked)["fds"].split())


@WITH_AND_WITHOUT_INIT
def test_what_process_1_has_open_leads_nowhere(ways: Ways, leaked: dict[str, Any], init: tuple[str, ...]) -> None:
    """Rootless: elsewhere an init can't be looked into at all, as it is not dumpable."""
    done = ways.run("rootless", ["sh", "-c", "ls /proc/1/fd"], init, **leaked)

    assert [number for number in done.stdout.split() if int(number) > 2] in ([], ["3"])  # the directory that ls reads
    if not init:
        return
    assert done.stdout.split() == ["0", "1", "2"]


@EVERY_MODE
def test_an_init_whose_filter_lacks_close_range_has_nothing_of_the_set_up_open(
    ways: Ways, public_tmp: Path, stockade: Run, mode: str
) -> None:
    """Profiles older than close_range(2) refuse it: descriptors of the set-up stayed open, the host's root too."""
    spec = json.loads(stockade("run", "--spec", "--host", "--", "true").stdout)
    profile: dict[str, Any] = spec["linux"]["seccomp"]
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != "close_range"]
    path = public_tmp / "old.json"
    path.write_text(json.dumps({**profile, "syscalls": [rule for rule in profile["syscalls"] if rule["names"]]}))
    options = ("--init", "--security-opt", f"seccomp={path}")

    done = ways.run(mode, ["sh", "-c", "for fd in /proc/1/fd/*; do ls -d $fd/etc; done; ls /proc/1/fd"], options)

    assert "/etc\n" not in done.stdout
    assert done.stdout.split() in ([], ["0", "1", "2"])
    refused = ways.probe(mode, "call", "close_range", "436", "100", "101", "0", options=options)
    assert refused["close_range"] == "ENOSYS"


PLACES = [
    *(f"/proc/self/fd/{number}" for number in (3, 4, 5, 6, 7, 8, 9, 10, 77)),
    *("/proc/self/fd/77/..", "/proc/thread-self/fd/77", "/proc/1/fd/77", "/proc/self/root", "/proc/1/cwd", "/link"),
]


@EVERY_MODE
@pytest.mark.parametrize("place", PLACES)
def test_cve_2024_21626_a_working_directory_through_a_descriptor(
    *, ways: Ways, rootfs: Path, user_rootfs: Path, secret: Path, leaked: dict[str, Any], mode: str, place: str
) -> None:
    root = user_rootfs if mode == "rootless" else rootfs
    (root / "link").symlink_to("/proc/self/fd/77")

    done = ways.run(
        mode, [f"{INSIDE}/probe", "cwd", str(secret)], ("--workdir", place),
        rootfs=root, **leaked, cwd=secret.parent,
    )  # fmt: skip

    if done.returncode == 0:
        found = probes.answers(done.stdout)
        assert found["cwd"].startswith("/")
        assert (found["marker"], found["climbing"]) == ("ENOENT", "ENOENT")
    else:
        assert done.returncode == 125
        assert "working directory" in done.stderr or "make sure of" in done.stderr


def test_a_runtime_that_follows_the_magic_link_puts_the_payload_on_the_host(leaked: dict[str, Any]) -> None:
    """CVE-2024-21626 in bubblewrap: the directory is outside of the root, and so is what is above it."""
    root = ["bwrap", "--tmpfs", "/", "--ro-bind", str(probes.directory()), INSIDE, "--proc", "/proc"]

    found = probes.outside([*root, "--chdir", "/proc/self/fd/77", f"{INSIDE}/probe", "cwd", "secret"], **leaked)

    assert found["marker"] == "ok"
    assert not found["cwd"].startswith("/")


@EVERY_MODE
def test_the_callers_working_directory_stays_the_callers(ways: Ways, secret: Path, mode: str) -> None:
    found = ways.probe(mode, "cwd", "secret", cwd=secret.parent)

    assert (found["cwd"], found["marker"]) == ("/", "ENOENT")
    assert probes.on_host("cwd", "secret", cwd=secret.parent)["marker"] == "ok"


@EVERY_MODE
@WITH_AND_WITHOUT_INIT
@pytest.mark.parametrize("interactive", [(), ("-i",)], ids=["detached", "interactive"])
def test_session_group_and_terminal_are_not_the_callers(
    ways: Ways, mode: str, init: tuple[str, ...], interactive: tuple[str, ...]
) -> None:
    words = ["run", "--rm", "--mode", mode, *init, *interactive, "-v", f"{probes.directory()}:{INSIDE}", "--host", "--"]
    if mode == "rootless":
        words.remove("--mode")
        words.remove(mode)

    said, typed = terminal(ways, mode, [*words, f"{INSIDE}/probe", "session", "--", "type", "0"])

    found = probes.answers(said)
    assert (found["session"], found["tty"]) == ("own", "ENXIO")
    assert found["TIOCSTI"] in {"EPERM", "ENOTTY"}
    assert typed == 0


def terminal(ways: Ways, mode: str, words: list[str], **others: Any) -> tuple[str, int]:
    """Run `stockade` with a terminal of the caller."""
    environment = {**os.environ, "PYTHONPATH": str(probes.ROOT)}
    if mode == "rootless":
        user = ways.user
        others |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
        environment = {"PATH": os.environ["PATH"], "HOME": user.pw_dir, "PYTHONPATH": str(probes.ROOT)}
    return probes.on_terminal([*probes.STOCKADE, *words], env=environment, **others)


def test_without_a_session_of_its_own_a_program_has_the_callers_terminal_and_types_into_it() -> None:
    said, typed = probes.on_terminal(
        ["bwrap", "--bind", "/", "/", "--dev-bind", "/dev", "/dev", probes.probe(), "session", "--", "type", "0"]
    )

    found = probes.answers(said)
    assert (found["session"], found["tty"], found["TIOCSTI"], found["TIOCSTI high"]) == ("foreign", "ok", "ok", "ok")
    assert typed == 3


@EVERY_MODE
def test_cve_2017_5226_typing_into_the_terminal_reaches_the_containers_own_only(ways: Ways, mode: str) -> None:
    """TIOCSTI, also with high bits, which the kernel ignores and a filter must too (CVE-2019-10063)."""
    words = ["run", "--rm", "-it", "-v", f"{probes.directory()}:{INSIDE}", "--host"]
    words[1:1] = [] if mode == "rootless" else ["--mode", mode]

    said, typed = terminal(ways, mode, [*words, "--", f"{INSIDE}/probe", "type", "0"])

    found = probes.answers(said.replace("x", ""))  # the echo of what was typed
    answers = {found[f"TIOCSTI{bits}"] for bits in ("", " high", " higher")}
    assert answers == ({"ok"} if mode == "privileged" else {"EPERM"})
    assert {found["TIOCLINUX"], found["TIOCLINUX high"]} == ({"ENOTTY"} if mode == "privileged" else {"EPERM"})
    assert typed == 0


@EVERY_MODE
@WITH_AND_WITHOUT_INIT
def test_the_environment_is_empty_but_for_what_was_asked_for(ways: Ways, mode: str, init: tuple[str, ...]) -> None:
    done = ways.run(
        mode,
        ["sh", "-c", "cat /proc/self/environ; tr '\\0' '\\n' </proc/1/environ"],
        ("--env", "MINE=1", *init),
        env={"STOCKADE_SECRET": "hunter2"},
    )

    names = {word.partition("=")[0] for word in done.stdout.replace("\0", "\n").split("\n") if word}
    assert names <= {"PATH", "HOME", "HOSTNAME", "MINE", "PWD", "SHLVL", "_"}
    assert "MINE" in names


def test_an_init_that_keeps_the_callers_environment_shows_it() -> None:
    """bubblewrap --clearenv clears the program's only."""
    bwrap = ["bwrap", "--bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--clearenv", "cat", "/proc/1/environ"]

    done = subprocess.run(bwrap, env={"STOCKADE_SECRET": "hunter2"}, capture_output=True, check=True)

    assert b"hunter2" in done.stdout


@pytest.mark.parametrize("mode", MODES)
def test_keys_of_the_callers_session_stay_there(ways: Ways, mode: str) -> None:
    """Without the filter: that keyctl is refused is not what keeps the keys apart."""
    words = ["run", "--rm", "--security-opt", "seccomp=unconfined", "-v", f"{probes.directory()}:{INSIDE}", "--host"]
    words[1:1] = [] if mode == "rootless" else ["--mode", mode]
    command = [*probes.STOCKADE, *words, "--", f"{INSIDE}/probe", "key", "stockade-key"]
    argv = [probes.probe(), "key-run", "stockade-key", *command]

    if mode == "rootless":
        done = ways.as_user(argv)
    else:
        done = subprocess.run(
            argv, env={**os.environ, "PYTHONPATH": str(probes.ROOT)}, capture_output=True, text=True, check=False
        )

    assert probes.answers(done.stdout) == {"key added": "ok", "key": "ENOKEY"}, done.stderr


@pytest.mark.parametrize("mode", CONFINED)
def test_keyrings_are_closed_to_the_payload(ways: Ways, mode: str) -> None:
    assert ways.probe(mode, "key", "stockade-key")["key"] == "EPERM"


def test_a_runtime_that_keeps_the_session_keyring_hands_out_the_keys() -> None:
    bwrap = ["bwrap", "--bind", "/", "/", "--unshare-all", probes.probe(), "key", "stockade-key"]

    found = probes.outside([probes.probe(), "key-run", "stockade-key", *bwrap])

    assert found == {"key added": "ok", "key": "ok"}


@EVERY_MODE
@WITH_AND_WITHOUT_INIT
def test_cve_2019_5736_no_visible_process_is_a_program_of_the_host(
    ways: Ways, rootfs: Path, user_rootfs: Path, mode: str, init: tuple[str, ...]
) -> None:
    root = user_rootfs if mode == "rootless" else rootfs
    with open(LAUNCHER, "rb") as file:
        before = hashlib.file_digest(file, "sha256").digest()

    found = ways.probe(mode, "exes", options=init, rootfs=root)

    host = {program_id(path) for path in (LAUNCHER, "/usr/bin/python3", os.path.realpath(probes.STOCKADE[0]))}
    processes = {name: answer for name, answer in found.items() if name.startswith("exe ")}
    assert processes.keys() >= {"exe 1"}
    for answer in processes.values():
        if answer in {"EACCES", "EPERM"}:
            continue
        identity, writing, target = answer.split(" ", 2)
        assert identity not in host
        assert writing in {"ETXTBSY", "EROFS", "EPERM", "EACCES"}
        assert target in {"/memfd:stockade-init (deleted)", f"{INSIDE}/probe"}
    assert found.get("exe written", "EPERM") == "EPERM"
    with open(LAUNCHER, "rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == before


def program_id(path: str) -> str:
    found = os.stat(path)
    return f"{found.st_dev}:{found.st_ino}"


def test_a_runtime_that_stays_as_init_shows_its_own_file() -> None:
    found = probes.outside(["bwrap", "--bind", "/", "/", "--unshare-pid", "--proc", "/proc", probes.probe(), "exes"])

    identity, writing, _ = found["exe 1"].split(" ", 2)
    assert identity == program_id("/usr/bin/bwrap")
    assert writing == "ETXTBSY"  # root could write to it as soon as it has ended


@pytest.mark.parametrize("mode", MODES)
def test_cve_2019_5736_the_launcher_as_the_containers_program(ways: Ways, mode: str) -> None:
    """An image may name /proc/self/exe: at that moment it is the runtime."""
    done = ways.run(mode, ["/proc/self/exe"], ("--timeout", "5"))

    assert done.returncode in {0, 1, 125, 126, 127, 137}
    assert "stockade" not in done.stdout


@EVERY_MODE
def test_a_file_on_stdin_or_stdout_is_not_given_away(ways: Ways, public_tmp: Path, mode: str) -> None:
    """By the name /proc/self/fd/0 its owner could write to what it was only to read, and change its mode."""
    given, taken = public_tmp / "in", public_tmp / "out"
    given.write_text("question\n")
    taken.write_text("earlier secret\n")
    for path in (given, taken):
        path.chmod(0o600)
        if mode == "rootless":
            os.chown(path, ways.user.pw_uid, ways.user.pw_gid)
    script = "cat; echo forged >/proc/self/fd/0; chmod 4755 /proc/self/fd/0 /proc/self/fd/1; cat /proc/self/fd/1 >&2"
    options = ["-i", "--userns", "host"] if mode != "rootless" else ["-i"]

    with given.open("r+") as stdin, taken.open("a") as stdout:
        done = ways.run(
            mode, ["timeout", "2", "sh", "-c", script], options,
            stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, capture_output=False,
        )  # fmt: skip

    assert "earlier secret" not in done.stderr
    assert given.read_text() == "question\n"
    assert taken.read_text().startswith("earlier secret\nquestion\n")
    assert {path.stat().st_mode & 0o7777 for path in (given, taken)} == {0o600}


@pytest.mark.parametrize("mode", ["normal", "rootless"])
def test_a_fifo_with_a_name_is_not_given_away(ways: Ways, public_tmp: Path, mode: str) -> None:
    path = public_tmp / "fifo"
    os.mkfifo(path, 0o600)
    if mode == "rootless":
        os.chown(path, ways.user.pw_uid, ways.user.pw_gid)
    options = ["-i", "--userns", "host"] if mode != "rootless" else ["-i"]
    both = os.open(path, os.O_RDWR)
    os.write(both, b"question\n")

    with path.open("rb", buffering=0) as stdin:
        done = ways.run(mode, ["sh", "-c", "head -n 1; chmod 666 /proc/self/fd/0"], options, stdin=stdin)

    os.close(both)
    assert done.stdout == "question\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_given_away_can_be_changed_by_name(public_tmp: Path) -> None:
    given = public_tmp / "in"
    given.write_text("question\n")

    with given.open() as stdin:
        subprocess.run(
            ["bwrap", "--bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib64", "/lib64",
             "--symlink", "usr/lib", "/lib", "--proc", "/proc", "sh", "-c", "echo forged >/proc/self/fd/0"],
            stdin=stdin, check=True,
        )  # fmt: skip

    assert given.read_text() == "forged\n"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stream", [0, 1, 2])
def test_the_null_device_of_the_host_is_not_given_away(ways: Ways, mode: str, stream: int) -> None:
    """Root of a shared user namespace owns it and could take it from everyone on the host."""
    before = os.stat("/dev/null")
    options = () if mode == "rootless" else ("--userns", "host")
    name, other = f"/proc/$$/fd/{stream}", 2 if stream == 1 else 1
    script = f"chmod 0641 {name}; mode=$(stat -Lc %a {name}); echo $mode >&{other}"
    streams: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "capture_output": False,
    }
    if stream:
        streams[("", "stdout", "stderr")[stream]] = subprocess.DEVNULL

    done = ways.run(mode, ["sh", "-c", script], options, **streams)

    after = os.stat("/dev/null")
    os.chmod("/dev/null", before.st_mode & 0o7777)
    assert after.st_mode == before.st_mode
    if mode != "rootless":  # it had a node of its own to change: the attempt was a real one
        assert "641" in (done.stdout or "") + (done.stderr or "")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_a_closed_stream_is_not_filled_by_a_descriptor_of_ours(
    ways: Ways, public_tmp: Path, mode: str, closed: tuple[int, ...]
) -> None:
    """The state's lock got the number of a closed stdin, and went to the program as that."""
    answer = public_tmp / "answer"
    answer.mkdir()
    answer.chmod(0o777)

    def close() -> None:
        for number in closed:
            os.close(number)

    options = ["-i", "-v", f"{answer}:/answer", *(() if mode == "rootless" else ("--userns", "host"))]
    script = "seen=$(ls -l /proc/$$/fd); kinds=$(stat -Lc %F /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2)\n"
    script += 'echo "$seen" >/answer/seen; echo "$kinds" >/answer/kinds'
    done = ways.run(mode, ["sh", "-c", script], options, preexec_fn=close)

    assert done.returncode == 0
    assert "/lock" not in (answer / "seen").read_text()
    kinds = (answer / "kinds").read_text().splitlines()
    assert set(kinds) <= {"character special file", "fifo"}
    assert all(kinds[number] == "character special file" for number in closed)


def test_processes_kept_ready_in_a_shared_pid_namespace_can_not_be_entered() -> None:
    """A Sandbox makes processes ahead. Where all see them, a payload with the same ids may try to take one over.

    It succeeds with a process that has nothing but the same ids and sets: a program of another container.
    """
    options: dict[str, Any] = {"mode": "normal", "pid": "host", "userns": "host", "host_root": True}
    options["mounts"] = [f"{probes.directory()}:{INSIDE}:ro"]
    with Sandbox(ahead=2, **_mounts(options)) as sandbox:
        for _ in range(3):
            sandbox.run(["true"])
        while len(sandbox._ready) < 2:
            sandbox._ready.append(sandbox._begin())
        for ready in sandbox._ready:
            while not ready.pending.compared:
                ready.pending.advance()
        pids = [sandbox._ready[1].pending.pid, api._launchers.get().pid]
        found = [sandbox_probe(sandbox, pid) for pid in pids]
        with Sandbox(ahead=0, **_mounts(options)) as other:
            plain = other.run(["sh", "-c", f"sleep 5 & {INSIDE}/probe outsider $!; kill $!"])

    for answer in found:
        assert {answer[name] for name in ("ptrace", "vm_read", "getfd")} == {"EPERM"}
        assert {answer[name] for name in ("fd/0", "mem", "environ", "root/")} == {"EACCES"}
    assert {probes.answers(plain.stdout.decode())[name] for name in ("ptrace", "mem", "fd/0", "root/")} == {"ok"}


def sandbox_probe(sandbox: Sandbox, pid: int) -> dict[str, str]:
    return probes.answers(sandbox.run([f"{INSIDE}/probe", "outsider", str(pid)]).stdout.decode())


def _mounts(options: dict[str, Any]) -> dict[str, Any]:
    from stockade.sandbox.mount_values import volume

    return options | {"mounts": tuple(volume(value) for value in options["mounts"])}


def test_an_init_is_filtered_before_the_program_starts() -> None:
    """Else the program could take it over with ptrace while it may still do everything."""
    from stockade.sandbox.mount_values import volume

    mounts = (volume(f"{probes.directory()}:{INSIDE}:ro"),)
    with Sandbox(init=True, mounts=mounts) as sandbox:
        for _ in range(30):
            found = sandbox.run([f"{INSIDE}/probe", "status", "1"]).stdout.decode()
            assert "1 Seccomp:\t2" in found
            assert "1 CapEff:\t00000000000004fb" in found
