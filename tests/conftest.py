"""What the tests share: fixtures for commands, users and root file systems, and the rule for `kernel` tests.

    stockade(*args, **options)  runs `python -m stockade ARGS` as whoever runs pytest
    as_user(argv, **options)    runs any command as the unprivileged test user, in /:
                                as_user(["id", "-u"]).stdout, as_user([sys.executable, "-m", "stockade", "run", …])
    unprivileged                that user: name, uid, gid, home
    public_tmp                  an empty directory that every user and every mapped id can reach (tmp_path is 0700)
    rootfs                      a busybox root file system of its own in such a directory, owned by root
    user_rootfs                 the same, owned by the test user
    forked(function)            the function's result, or its exception, from a forked child that may give up anything

`stockade` and `as_user` are `Callable[..., CompletedProcess[str]]`: output captured as text, standard input empty,
60 seconds at most, never an exception for an exit code; options go to subprocess.run.
"""

from __future__ import annotations

import os
import pickle
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parent.parent
USER = "stockade-test"  # ./dev makes it, with subordinate ids
DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "var")
FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nextra:x:2000:app\n",
}


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what a plain run leaves out."""
    asked = any("guest" in word for word in config.args)
    return None if asked else "guest: tests/guest is not part of this run, since a machine boots for it: ./dev guest"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a `kernel` test run as root only: elsewhere it fails, or is skipped where that was asked for by name."""
    if item.get_closest_marker("kernel") is None or os.geteuid() == 0:
        return
    if os.environ.get("STOCKADE_UNPRIVILEGED_TESTS") == "1":
        pytest.skip("needs root, and STOCKADE_UNPRIVILEGED_TESTS=1 leaves such tests out")
    pytest.fail(
        "needs root: run ./dev test as root, or leave such tests out with STOCKADE_UNPRIVILEGED_TESTS=1", pytrace=False
    )


def _run(argv: Sequence[str | os.PathLike[str]], options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    defaults: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60}
    if "input" not in options:
        defaults["stdin"] = subprocess.DEVNULL
    return subprocess.run(argv, check=False, **(defaults | options))


@pytest.fixture(scope="session")
def unprivileged() -> pwd.struct_passwd:
    """Give the passwd entry (pw_name, pw_uid, pw_gid, pw_dir) of the user that rootless tests run as."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        pytest.fail(f"there is no user {USER}: run ./dev setup as root", pytrace=False)


@pytest.fixture(scope="session")
def as_user(unprivileged: pwd.struct_passwd) -> Run:
    """Run a command as the unprivileged user, with its home, its groups and a small environment, in /."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": unprivileged.pw_dir,
        "USER": unprivileged.pw_name,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
    }
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": unprivileged.pw_uid, "group": unprivileged.pw_gid, "extra_groups": []}

    def run(argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        options["env"] = environment | options.get("env", {})
        return _run(argv, {"cwd": "/"} | identity | options)

    reach = run(["test", "-r", __file__])
    if reach.returncode != 0:
        pytest.fail(f"{unprivileged.pw_name} can't read {ROOT}: run ./dev test, which sees to that", pytrace=False)
    return run


@pytest.fixture(scope="session")
def stockade() -> Run:
    """Run the command `stockade` of this tree as whoever runs the tests."""

    def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        options["env"] = {**os.environ, "PYTHONPATH": str(ROOT), **options.get("env", {})}
        return _run([sys.executable, "-m", "stockade", *args], options)

    return run


@pytest.fixture
def public_tmp() -> Iterator[Path]:
    """Give a directory that everyone may enter; it goes with the test."""
    with tempfile.TemporaryDirectory(prefix="stockade-test-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(scope="session")
def _busybox() -> tuple[Path, list[str]]:
    program = shutil.which("busybox")
    if program is None:
        pytest.fail("there is no busybox: run ./dev setup as root, or install busybox-static", pytrace=False)
    return Path(program), _run([program, "--list"], {}).stdout.split()


def _fill(root: Path, busybox: tuple[Path, list[str]]) -> Path:
    program, applets = busybox
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for name, text in FILES.items():
        (root / name).write_text(text)
    shutil.copy(program, root / "bin/busybox")
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    return root


@pytest.fixture
def rootfs(public_tmp: Path, _busybox: tuple[Path, list[str]]) -> Path:
    """Give a root file system with a static busybox, every applet, and users root, app (1000) and nobody."""
    return _fill(public_tmp / "rootfs", _busybox)


@pytest.fixture
def user_rootfs(public_tmp: Path, _busybox: tuple[Path, list[str]], unprivileged: pwd.struct_passwd) -> Path:
    """Give a root file system as `rootfs` does, owned by the test user."""
    root = _fill(public_tmp / "user-rootfs", _busybox)
    for path in (root, *root.rglob("*")):
        os.chown(path, unprivileged.pw_uid, unprivileged.pw_gid, follow_symlinks=False)
    return root


@pytest.fixture
def forked() -> Callable[[Callable[[], Any]], Any]:
    """Run a function in a forked child, where it may change or give up whatever it likes.

    Gives its result or raises its exception (both pickled); a child that dies without either fails the test.
    """

    def run(function: Callable[[], Any]) -> Any:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                try:
                    answer = pickle.dumps((True, function()))
                except BaseException as error:  # noqa: BLE001 - a failed assert too is told by the parent
                    answer = pickle.dumps((False, error))
                with os.fdopen(writer, "wb") as pipe:
                    pipe.write(answer)
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        assert answer, f"the child died: wait status {status:#x}"
        succeeded, result = pickle.loads(answer)  # noqa: S301 - from our own child
        if not succeeded:
            raise result
        return result

    return run
