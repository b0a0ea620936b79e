from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox.linux import calls, capabilities, mountinfo, paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Forked = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.kernel


def private_mounts() -> None:
    calls.unshare(calls.CLONE_NEWNS)
    calls.mount(None, "/", None, calls.MS_REC | calls.MS_PRIVATE)


def tried(function: Callable[[], object]) -> str:
    try:
        function()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def test_a_read_only_tree_refuses_writes_in_submounts(tmp_path: Path, forked: Forked) -> None:
    def child() -> tuple[str, str]:
        private_mounts()
        upper = calls.new_mount("tmpfs", {"size": "1m"})
        calls.move_mount(upper, "", calls.AT_FDCWD, str(tmp_path), calls.MOVE_MOUNT_F_EMPTY_PATH)
        (tmp_path / "below").mkdir()
        calls.mount("tmpfs", str(tmp_path / "below"), "tmpfs", 0, "size=1m")
        tree = calls.open_tree(calls.AT_FDCWD, str(tmp_path), calls.OPEN_TREE_CLONE | calls.AT_RECURSIVE)
        calls.mount_setattr(tree, "", calls.AT_EMPTY_PATH | calls.AT_RECURSIVE, calls.MOUNT_ATTR_RDONLY, 0)
        writable = tried((tmp_path / "below/x").touch)
        calls.move_mount(tree, "", calls.AT_FDCWD, str(tmp_path), calls.MOVE_MOUNT_F_EMPTY_PATH)
        return writable, tried((tmp_path / "below/y").touch)

    assert forked(child) == ("done", "EROFS")


def test_a_new_mount_has_its_options_and_flags(tmp_path: Path, forked: Forked) -> None:
    def child() -> mountinfo.Mount:
        private_mounts()
        flags = calls.MOUNT_ATTR_NODEV | calls.MOUNT_ATTR_NOSUID | calls.MOUNT_ATTR_NOEXEC
        fd = calls.new_mount("tmpfs", {"size": "64k", "mode": "0711", "noswap": None}, flags)
        calls.move_mount(fd, "", calls.AT_FDCWD, str(tmp_path), calls.MOVE_MOUNT_F_EMPTY_PATH)
        return mountinfo.of("self")[-1]

    mount = forked(child)

    assert (mount.mount_point, mount.fstype) == (str(tmp_path), "tmpfs")
    assert {"nosuid", "nodev", "noexec"} <= set(mount.options)
    assert {"size=64k", "mode=711", "noswap"} <= set(mount.super_options)


@pytest.mark.parametrize(
    ("fstype", "options", "expected"),
    [("tmpfs", {"size": "many"}, "size"), ("tmpfs", {"moon": "1"}, "moon"), ("nosuchfs", {}, "nosuchfs")],
)
def test_a_refused_mount_names_the_option_or_the_type(
    fstype: str, options: dict[str, str | int | None], expected: str
) -> None:
    before = os.listdir("/proc/self/fd")

    with pytest.raises(OSError, match=r".") as error:
        calls.new_mount(fstype, options)

    assert os.fsdecode(error.value.filename) == expected
    assert os.listdir("/proc/self/fd") == before


def test_pivot_root_and_umount_leave_nothing_of_the_old_root(tmp_path: Path, forked: Forked) -> None:
    def child() -> tuple[list[str], int]:
        private_mounts()
        calls.mount("tmpfs", str(tmp_path), "tmpfs", 0)
        os.mkdir(tmp_path / "proc")
        calls.mount("proc", str(tmp_path / "proc"), "proc", 0)
        os.chdir(tmp_path)
        calls.pivot_root(".", ".")
        calls.umount2(".", calls.MNT_DETACH)
        os.chdir("/")
        return os.listdir("/"), len(mountinfo.of("self"))

    assert forked(child) == (["proc"], 2)


def test_names_are_escaped_by_the_kernel_as_we_read_them(tmp_path: Path, forked: Forked) -> None:
    name = "a b\tc\nd\\e#f\\040g"
    (tmp_path / name).mkdir()

    def child() -> mountinfo.Mount:
        private_mounts()
        calls.mount("so urce\\040", str(tmp_path / name), "tmpfs", 0)
        return mountinfo.of("self")[-1]

    mount = forked(child)

    assert (mount.mount_point, mount.source) == (str(tmp_path / name), "so urce\\040")


def test_propagation_is_read(tmp_path: Path, forked: Forked) -> None:
    def child() -> list[mountinfo.Mount]:
        private_mounts()
        calls.mount("one", str(tmp_path), "tmpfs", 0)
        calls.mount(None, str(tmp_path), None, calls.MS_SHARED)
        os.mkdir(tmp_path / "slave")
        calls.mount(str(tmp_path), str(tmp_path / "slave"), None, calls.MS_BIND)
        calls.mount(None, str(tmp_path / "slave"), None, calls.MS_SLAVE)
        return [mount for mount in mountinfo.of("self") if mount.source == "one"]

    shared, slave = forked(child)[:2]

    assert shared.shared is not None
    assert slave.master == shared.shared
    assert slave.shared is None


def test_cve_2025_52881_a_magic_link_in_the_root_is_not_followed(tmp_path: Path, forked: Forked) -> None:
    def child() -> tuple[str, str]:
        private_mounts()
        os.mkdir(tmp_path / "proc")
        calls.mount("proc", str(tmp_path / "proc"), "proc", 0)
        root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
        os.symlink("/proc/self/root/etc", tmp_path / "etc")
        strict = tried(lambda: paths.open_in_root(root, "etc/passwd", os.O_PATH))
        made = tried(lambda: paths.create_in_root(root, "etc/stockade-must-not-be", "file", 0o644))
        return strict, made

    assert forked(child) == ("ELOOP", "ELOOP")
    assert not os.path.exists("/etc/stockade-must-not-be")


def test_a_device_as_passwd_is_refused_unopened(tmp_path: Path) -> None:
    os.mknod(tmp_path / "passwd", 0o20666, os.makedev(1, 5))  # /dev/zero never ends
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)

    outcome = tried(lambda: paths.read_small(root, "passwd"))

    os.close(root)
    assert outcome == "EINVAL"


def test_capset_sets_what_it_is_told(forked: Forked) -> None:
    chown, kill = capabilities.mask(["CAP_CHOWN"]), capabilities.mask(["CAP_KILL"])
    last = 1 << 40

    def child() -> capabilities.Sets:
        calls.capset(chown | last, chown | kill | last, kill | last)
        calls.cap_ambient(calls.PR_CAP_AMBIENT_RAISE, 40)
        return capabilities.own()

    sets = forked(child)

    assert (sets.effective, sets.permitted, sets.inheritable, sets.ambient) == (
        chown | last,
        chown | kill | last,
        kill | last,
        last,
    )


def test_a_new_session_keyring_is_joined(forked: Forked) -> None:
    def child() -> tuple[int, int]:
        before = calls.keyctl(calls.KEYCTL_GET_KEYRING_ID, calls.KEY_SPEC_SESSION_KEYRING, 1)
        return before, calls.keyctl(calls.KEYCTL_JOIN_SESSION_KEYRING, None)

    before, after = forked(child)

    assert before != after
