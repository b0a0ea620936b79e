from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stockade.sandbox import cache

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of a kind in a cache of its own, with one entry."""
    monkeypatch.setattr(cache, "directory", lambda: str(tmp_path / "cache"))
    assert cache.get("kind", KEY) is None
    assert cache.put("kind", KEY, b"data")
    return tmp_path / "cache" / "kind"


def entry(folder: Path) -> Path:
    return folder / KEY.hex()


@pytest.mark.usefixtures("folder")
def test_what_was_put_is_found_again_and_only_under_its_key() -> None:
    assert cache.get("kind", KEY) == b"data"
    assert cache.get("kind", KEY[::-1]) is None
    assert cache.get("other", KEY) is None


def test_directories_and_files_are_the_owners_alone(folder: Path) -> None:
    modes = [path.stat().st_mode & 0o7777 for path in (folder.parent, folder, entry(folder))]

    assert modes == [0o700, 0o700, 0o600]
    assert os.listdir(folder) == [KEY.hex()]


def test_a_later_put_replaces_the_earlier(folder: Path) -> None:
    assert cache.put("kind", KEY, b"other")

    assert cache.get("kind", KEY) == b"other"
    assert len(os.listdir(folder)) == 1


@pytest.mark.parametrize("change", [b"", b"data", b"stockade cache 1\n" + bytes(36)])
def test_changed_content_is_a_miss(folder: Path, change: bytes) -> None:
    entry(folder).write_bytes(change)

    assert cache.get("kind", KEY) is None


def test_one_turned_bit_is_a_miss(folder: Path) -> None:
    content = bytearray(entry(folder).read_bytes())
    content[-1] ^= 1
    entry(folder).write_bytes(content)

    assert cache.get("kind", KEY) is None


def test_an_entry_of_another_key_is_a_miss(folder: Path) -> None:
    """Else whoever may rename could give one profile the filter of another."""
    os.rename(entry(folder), folder / KEY[::-1].hex())

    assert cache.get("kind", KEY[::-1]) is None


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_an_entry_that_others_may_write_is_a_miss(folder: Path, mode: int) -> None:
    entry(folder).chmod(mode)

    assert cache.get("kind", KEY) is None


@pytest.mark.parametrize("level", ["cache", "kind"])
def test_a_directory_that_others_may_write_is_neither_read_nor_written(folder: Path, level: str) -> None:
    (folder.parent if level == "cache" else folder).chmod(0o777)

    assert cache.get("kind", KEY) is None
    assert not cache.put("kind", KEY, b"more")


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    os.rename(entry(folder), moved)
    entry(folder).symlink_to(moved)
    assert cache.get("kind", KEY) is None

    os.rename(folder, tmp_path / "kind")
    folder.symlink_to(tmp_path / "kind")
    assert not cache.put("kind", KEY, b"more")


def test_a_fifo_is_a_miss_and_does_not_hang(folder: Path) -> None:
    entry(folder).unlink()
    os.mkfifo(entry(folder), 0o600)

    assert cache.get("kind", KEY) is None


def test_a_full_or_read_only_disk_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)

    assert not cache.put("kind", KEY, b"more")
    monkeypatch.undo()
    assert os.listdir(folder) == [KEY.hex()]


def test_it_lies_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_initial_namespace", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.directory() == "/home/u/.cache/stockade"
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache.directory() == "/c/stockade"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache.directory() == "/var/cache/stockade"
    monkeypatch.setattr(cache, "_initial_namespace", lambda: False)
    assert cache.directory() == "/c/stockade"


@pytest.mark.kernel
def test_an_entry_of_another_user_is_a_miss(folder: Path) -> None:
    os.chown(entry(folder), 1000, 1000)

    assert cache.get("kind", KEY) is None


@pytest.mark.kernel
def test_root_of_a_user_namespace_keeps_its_cache_at_home() -> None:
    program = "from stockade.sandbox import cache; print(cache.directory())"
    environment = {"HOME": "/home/u", "PATH": os.environ["PATH"]}
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", program]

    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)

    assert done.stdout == "/home/u/.cache/stockade\n"
