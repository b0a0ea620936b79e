"""Users of a root file system that may be hostile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from stockade.errors import UsageError
from stockade.sandbox.rootfs_users import read_users
from stockade.sandbox.users import MAX_BYTES, Resolved, resolve_user

if TYPE_CHECKING:
    from pathlib import Path

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:33::/srv:/bin/sh\n2000:x:5:6::/odd:/bin/sh\nbad:x:y:z::/:\n"
GROUP = b"root:x:0:\nstaff:x:50:other,app\nweb:x:33:app\nagain:x:50:app\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Resolved(0, 0, (), "root", "/root")),
        ("root", Resolved(0, 0, (), "root", "/root")),
        ("app", Resolved(1000, 33, (50,), "app", "/srv")),
        ("1000", Resolved(1000, 33, (50,), "app", "/srv")),
        ("1000:7", Resolved(1000, 7, (), "app", "/srv")),
        ("app:staff", Resolved(1000, 50, (), "app", "/srv")),
        ("7", Resolved(7, 0)),
        ("7:web", Resolved(7, 33)),
        ("2000", Resolved(5, 6, (), "2000", "/odd")),  # a name first, as in Docker
    ],
)
def test_a_user_is_found_as_docker_finds_it(text: str, expected: Resolved) -> None:
    assert resolve_user(text, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    "text", ["", ":", "app:", ":5", "nobody", "app:nogroup", "-1", "4294967295", "99999999999", "bad"]
)
def test_a_user_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        resolve_user(text, PASSWD, GROUP)


def test_a_number_needs_no_files() -> None:
    assert resolve_user("5:6", None, None) == Resolved(5, 6)
    with pytest.raises(UsageError, match="has no /etc/passwd"):
        resolve_user("app", None, None)


def test_garbage_lines_are_passed_over() -> None:
    assert resolve_user("app", b"\0\xff:::\n:::::::\napp:x\n" + PASSWD, b"\xff" * 100).uid == 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(PASSWD)
    return tmp_path


def test_files_are_read_and_absent_ones_are_none(root: Path) -> None:
    assert read_users(str(root)) == (PASSWD, None)


def test_a_fifo_as_passwd_is_refused_without_waiting(root: Path) -> None:
    os.unlink(root / "etc/passwd")
    os.mkfifo(root / "etc/passwd")

    with pytest.raises(UsageError, match="/etc/passwd is not a regular file"):
        read_users(str(root))


def test_a_gigabyte_as_passwd_is_refused_without_reading(root: Path) -> None:
    os.truncate(root / "etc/passwd", 1 << 30)

    with pytest.raises(UsageError, match=f"the limit is {MAX_BYTES}"):
        read_users(str(root))


@pytest.mark.parametrize(
    "target", ["/etc/shadow", "../../../../../../../../../../etc/shadow", "/proc/self/root/etc/shadow"]
)
def test_a_link_to_a_file_of_the_host_leads_nowhere(root: Path, target: str) -> None:
    os.unlink(root / "etc/passwd")
    os.symlink(target, root / "etc/passwd")

    assert read_users(str(root)) == (None, None)


def test_a_link_inside_the_root_is_followed(root: Path) -> None:
    (root / "store").mkdir()
    os.rename(root / "etc/passwd", root / "store/users")
    os.symlink("/store/users", root / "etc/passwd")
    os.rename(root / "etc", root / "store/etc")
    os.symlink("/store/etc", root / "etc")

    assert read_users(str(root)) == (PASSWD, None)


def test_an_etc_that_is_a_link_out_of_the_root_leads_nowhere(root: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    os.symlink(root / "etc", inner / "etc")

    assert read_users(str(inner)) == (None, None)


def test_an_etc_that_is_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    os.symlink("/etc", tmp_path / "etc")

    with pytest.raises(UsageError, match="Too many levels of symbolic links"):
        read_users(str(tmp_path))


def test_a_rootfs_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        read_users(str(tmp_path / "gone"))
