from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.sandbox.linux import mountinfo
from stockade.sandbox.linux.mountinfo import Mount

# The example of proc(5), a name with a blank, an empty source, a slave that is shared, and a removed mount point.
TEXT = r"""36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
40 36 0:33 / /a\040b\011c\134d ro,nosuid shared:7 master:2 propagate_from:3 - tmpfs  rw,size=4k
41 36 0:33 /x /y//deleted rw unbindable - fuse.my\134fs host:/a\040b ro,lowerdir=/l\0401
"""


def test_the_fields_of_a_mount_are_read() -> None:
    first, second, third = mountinfo.parse(TEXT)

    assert first == Mount(
        id=36,
        parent=35,
        major=98,
        minor=0,
        root="/mnt1",
        mount_point="/mnt2",
        options=("rw", "noatime"),
        optional=("master:1",),
        fstype="ext3",
        source="/dev/root",
        super_options=("rw", "errors=continue"),
    )
    assert (second.mount_point, second.source, second.shared, second.master) == ("/a b\tc\\d", "", 7, 2)
    assert (third.fstype, third.source, third.super_options) == ("fuse.my\\fs", "host:/a b", ("ro", "lowerdir=/l 1"))
    assert (first.shared, third.shared, third.master) == (None, None, None)


@pytest.mark.parametrize(("line", "read_only"), [*zip(TEXT.splitlines(), (False, True, True), strict=True)])
def test_a_mount_is_writable_only_when_the_mount_and_its_file_system_are(line: str, *, read_only: bool) -> None:
    assert mountinfo.parse(line)[0].read_only == read_only


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_name_survives_the_kernels_escapes(name: str) -> None:
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in name)

    assert mountinfo.unescape(escaped) == name


@pytest.mark.parametrize("text", ["\\", "\\0", "\\04", "\\999", "\\x40", "a\\", "\\777"])
def test_what_is_no_escape_stays_as_it_is(text: str) -> None:
    assert mountinfo.unescape(text) == text


@pytest.mark.parametrize("line", ["", "1 2 3", "36 35 98:0 / / rw ext3 /dev/root rw", "36 35 98:0 / / rw - ext3 rw"])
def test_text_that_is_no_mountinfo_is_refused(line: str) -> None:
    if line:
        with pytest.raises(ValueError, match=r"."):
            mountinfo.parse(line)
    else:
        assert mountinfo.parse(line) == ()


def test_the_mount_that_covers_a_path_is_the_last_of_the_nearest() -> None:
    mounts = mountinfo.parse(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 8:2 / /home rw - ext4 /dev/b rw\n"
        "3 1 8:3 / /home rw - ext4 /dev/c rw\n"
        "4 1 8:4 / /homely rw - ext4 /dev/d rw\n"
    )

    def covering(path: str) -> int | None:
        mount = mountinfo.covering(mounts, path)
        return mount.id if mount else None

    assert [covering(path) for path in ("/", "/hom", "/home", "/home/x", "/homely/x")] == [1, 1, 3, 3, 4]


def test_the_own_mounts_hold_proc_with_the_device_that_stat_tells() -> None:
    (proc,) = [mount for mount in mountinfo.of("self") if mount.mount_point == "/proc"][-1:]

    assert proc.fstype == "proc"
    assert os.makedev(proc.major, proc.minor) == os.stat("/proc").st_dev


def test_the_mounts_of_a_process_that_has_gone_are_a_lookup_error() -> None:
    with pytest.raises(ProcessLookupError):
        mountinfo.of(0x7FFFFFF0)
