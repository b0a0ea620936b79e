from __future__ import annotations

import errno
import os
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stockade.sandbox.linux import paths
from stockade.sandbox.linux.calls_base import syscall

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Root:
    """A root directory with a neighbour that must never be reached."""

    def __init__(self, base: Path) -> None:
        self.path = base / "root"
        self.outside = base / "outside"
        for directory in (self.path, self.outside):
            directory.mkdir()
        (self.outside / "secret").write_text("the host's")
        self.fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY)

    def link(self, name: str, target: str | Path) -> None:
        (self.path / name).symlink_to(target)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    os.close(made.fd)


def place(descriptor: int) -> str:
    """Give the path of a descriptor and close it."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def code(error: pytest.ExceptionInfo[OSError]) -> str:
    return errno.errorcode[error.value.errno or 0]


def test_links_are_followed_as_if_the_root_were_the_root(root: Root) -> None:
    (root.path / "etc").mkdir()
    (root.path / "etc/passwd").write_text("inside")
    root.link("absolute", "/etc")
    root.link("climbing", "../../../../etc")

    for name in ("etc/passwd", "/etc/passwd", "absolute/passwd", "climbing/passwd", "../../etc/passwd"):
        assert paths.read_small(root.fd, name) == b"inside"


def test_no_link_leads_out_of_the_root(root: Root) -> None:
    root.link("absolute", root.outside)
    root.link("climbing", "../outside")

    for name in ("absolute/secret", "climbing/secret", "../outside/secret", f"{root.outside}/secret"):
        with pytest.raises(FileNotFoundError):
            paths.read_small(root.fd, name)
    # The same links do lead out where nobody looks after them.
    assert os.stat("absolute/secret", dir_fd=root.fd).st_size > 0


@pytest.mark.parametrize("reserved", ["proc", "sys", "dev"])
def test_cve_2019_16884_a_reserved_directory_that_is_a_link_is_refused(root: Root, reserved: str) -> None:
    root.link(reserved, root.outside)

    with pytest.raises(OSError, match=reserved) as error:
        paths.open_root(str(root.path))

    assert code(error) == "ELOOP"


def test_cve_2019_16884_a_reserved_directory_that_is_a_file_is_refused(root: Root) -> None:
    (root.path / "proc").write_text("")

    with pytest.raises(NotADirectoryError):
        paths.open_root(str(root.path))


def test_a_root_with_or_without_its_reserved_directories_is_accepted(root: Root) -> None:
    assert place(paths.open_root(str(root.path))) == str(root.path)
    (root.path / "dev").mkdir()
    assert place(paths.open_root(str(root.path))) == str(root.path)


@pytest.mark.parametrize(("kind", "right"), [("dir", stat.S_ISDIR), ("file", stat.S_ISREG)])
def test_a_place_to_mount_on_is_made_with_its_parents(root: Root, kind: str, right: object) -> None:
    assert callable(right)
    descriptor = paths.create_in_root(root.fd, "/a/./b//c", kind, 0o700)

    assert right(os.fstat(descriptor).st_mode)
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o700
    assert place(descriptor) == str(root.path / "a/b/c")


def test_a_place_that_is_there_stays_as_it_is(root: Root) -> None:
    (root.path / "dir").mkdir(mode=0o711)
    (root.path / "file").write_text("kept")
    os.mkfifo(root.path / "fifo")

    os.close(paths.create_in_root(root.fd, "dir", "dir", 0o755))
    os.close(paths.create_in_root(root.fd, "file", "file", 0o600))
    os.close(paths.create_in_root(root.fd, "fifo", "file", 0o600))

    assert stat.S_IMODE((root.path / "dir").stat().st_mode) == 0o711
    assert (root.path / "file").read_text() == "kept"


def test_cve_2021_30465_a_place_behind_links_is_made_inside_the_root(root: Root) -> None:
    (root.path / "etc").mkdir()
    root.link("absolute", "/etc")
    root.link("climbing", "../../../etc")

    assert place(paths.create_in_root(root.fd, "absolute/x/y", "dir", 0o755)) == str(root.path / "etc/x/y")
    assert place(paths.create_in_root(root.fd, "climbing/z", "file", 0o644)) == str(root.path / "etc/z")


def test_cve_2021_30465_nothing_is_made_behind_a_link_that_leads_nowhere(root: Root) -> None:
    root.link("dangling", root.outside / "new")
    (root.path / "dir").mkdir()
    root.link("dir/dangling", "../../outside/new")

    for name in ("dangling", "dangling/x", "dir/dangling", "dir/dangling/x"):
        for kind in ("dir", "file"):
            with pytest.raises(FileExistsError, match="leads nowhere"):
                paths.create_in_root(root.fd, name, kind, 0o755)
    assert os.listdir(root.outside) == ["secret"]


def test_a_place_of_the_other_kind_is_refused(root: Root) -> None:
    (root.path / "dir").mkdir()
    (root.path / "file").write_text("")

    with pytest.raises(IsADirectoryError):
        paths.create_in_root(root.fd, "dir", "file", 0o644)
    for name in ("file", "file/below"):
        with pytest.raises(NotADirectoryError):
            paths.create_in_root(root.fd, name, "dir", 0o755)


@pytest.mark.parametrize("path", ["..", "a/..", "../outside/x", "/a/../b", "a\0b"])
def test_a_place_that_climbs_is_refused(root: Root, path: str) -> None:
    with pytest.raises(OSError, match=r"\.\.") as error:
        paths.create_in_root(root.fd, path, "dir", 0o755)

    assert code(error) == "EINVAL"
    assert os.listdir(root.path) == []


def test_failures_leave_no_descriptor_behind(root: Root) -> None:
    root.link("dangling", "/nowhere")
    root.link("dev", "/")
    before = os.listdir("/proc/self/fd")

    for _ in range(3):
        with pytest.raises(FileExistsError):
            paths.create_in_root(root.fd, "dangling/below", "dir", 0o755)
        with pytest.raises(FileNotFoundError):
            paths.read_small(root.fd, "missing")
        with pytest.raises(OSError, match="dev"):
            paths.open_root(str(root.path))

    assert os.listdir("/proc/self/fd") == before


def test_cve_2021_30465_a_directory_swapped_for_a_link_meanwhile_never_leads_out(root: Root) -> None:
    (root.path / "swapped").mkdir()
    (root.path / "link").symlink_to(root.outside)
    stop = threading.Event()

    def swap() -> None:
        number = {"x86_64": 316}.get(os.uname().machine, 276)  # renameat2
        exchange = 2
        while not stop.is_set():
            syscall(number, root.fd, b"swapped", root.fd, b"link", exchange)

    attacker = threading.Thread(target=swap)
    attacker.start()
    outcomes: set[object] = set()
    try:
        for turn in range(2000):
            try:
                made = place(paths.create_in_root(root.fd, f"swapped/new{turn}", "dir", 0o755))
                outcomes.add(made.startswith(f"{root.path}/"))
            except OSError as error:
                outcomes.add(errno.errorcode[error.errno or 0])
    finally:
        stop.set()
        attacker.join()

    assert os.listdir(root.outside) == ["secret"]
    assert False not in outcomes
    # Both were met: the directory and the link, which leads nowhere inside the root.
    assert outcomes >= {True, "EEXIST"}


def test_a_fifo_as_passwd_neither_waits_nor_is_opened(root: Root) -> None:
    os.mkfifo(root.path / "passwd")
    writers = []

    def write() -> None:
        # Opening for writing succeeds at the moment somebody opens for reading.
        writers.append(os.open(root.path / "passwd", os.O_WRONLY))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    # It waits in openat(2), if /proc shows that here.
    waiting = f"/proc/self/task/{writer.native_id}/syscall"
    deadline = time.monotonic() + 5
    while os.path.exists(waiting) and time.monotonic() < deadline:
        with open(waiting, encoding="ascii") as file:
            if file.read().split()[0] in ("257", "56"):
                break

    with pytest.raises(OSError, match="not a regular file") as error:
        paths.read_small(root.fd, "passwd")

    assert code(error) == "EINVAL"
    assert writers == []
    reader = os.open(root.path / "passwd", os.O_RDONLY | os.O_NONBLOCK)
    writer.join(10)
    os.close(reader)
    assert len(writers) == 1
    os.close(writers[0])


def test_a_directory_as_passwd_is_refused(root: Root) -> None:
    (root.path / "passwd").mkdir()

    with pytest.raises(OSError, match="not a regular file"):
        paths.read_small(root.fd, "passwd")


def test_a_file_above_the_limit_is_refused_unread(root: Root) -> None:
    with (root.path / "passwd").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(OSError, match="too large") as error:
        paths.read_small(root.fd, "passwd")

    assert code(error) == "EFBIG"


def test_a_file_that_grows_while_it_is_read_is_cut_off_at_the_limit(root: Root) -> None:
    (root.path / "grows").write_bytes(b"x" * 10)
    descriptor = paths.open_regular(root.fd, "grows", limit=10)
    with (root.path / "grows").open("ab") as file:
        file.write(b"y" * 1000)

    with pytest.raises(OSError, match="grows"):
        paths.read_limited(descriptor, "grows", limit=10)

    os.close(descriptor)


@given(size=st.integers(0, 300_000))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_of_any_size_up_to_the_limit_is_read_whole(root: Root, size: int) -> None:
    (root.path / "file").write_bytes(b"z" * size)

    assert paths.read_small(root.fd, "file", limit=size) == b"z" * size


def test_a_path_with_nul_is_refused(root: Root) -> None:
    with pytest.raises(ValueError, match="null byte"):
        paths.open_in_root(root.fd, "etc\0/passwd", os.O_PATH)


def test_a_file_is_replaced_with_exactly_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "state"
    before = os.umask(0o077)
    try:
        paths.write_atomically(str(target), b"one", 0o644)
        held = target.open("rb")
        paths.write_atomically(str(target), b"two", 0o640)
    finally:
        os.umask(before)

    with held:
        assert held.read() == b"one"
    assert target.read_bytes() == b"two"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["state"]


def test_a_link_at_the_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("untouched")
    (tmp_path / "state").symlink_to("other")

    paths.write_atomically(str(tmp_path / "state"), b"new")

    assert (tmp_path / "other").read_text() == "untouched"
    assert not (tmp_path / "state").is_symlink()


def test_a_file_is_replaced_below_a_directory_descriptor(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        paths.write_atomically("state", b"one", dir_fd=descriptor)
        paths.write_atomically("state", b"two", dir_fd=descriptor, sync=False)
    finally:
        os.close(descriptor)

    assert (tmp_path / "state").read_bytes() == b"two"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/kept").write_text("")

    with pytest.raises(OSError, match="state"):
        paths.write_atomically(str(tmp_path / "state"), b"new")

    assert os.listdir(tmp_path) == ["state"]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path: Path) -> None:
    target = tmp_path / "state"
    versions = [bytes([letter]) * 200_000 for letter in b"ab"]
    paths.write_atomically(str(target), versions[0])
    stop = threading.Event()
    seen = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        paths.write_atomically(str(target), versions[turn % 2], sync=False)
    stop.set()
    reader.join()

    assert seen <= set(versions)


def test_a_long_name_is_written(tmp_path: Path) -> None:
    paths.write_atomically(str(tmp_path / ("n" * 255)), b"x")

    assert os.listdir(tmp_path) == ["n" * 255]
