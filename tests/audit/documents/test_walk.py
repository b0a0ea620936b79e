"""Which files an audit finds: as git would, without following links, and never stuck at what is no file."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stockade.audit.documents import walk
from stockade.audit.documents.load import Broken

if TYPE_CHECKING:
    from pathlib import Path

PATTERNS = [
    "*.yml", "/a", "a/", "!a/b.yml", "**/c", "a/**", "a/**/b.yml", "b*", "!b.yml", "[ab].yml", "d/e", "?.yaml", "!/d",
    "c/", "d/*", "!d/e/", "\\!x.yml", "x\\ ", "*", "!*/", "!*.yaml", "a/*/c", "[!a].yml", "[^b]/", "foo[", "*.y?ml",
    "/**/e", "**", "d/**/", "# a", "", "a.yml   ",
]  # fmt: skip


def found(root: Path) -> set[str]:
    return {os.path.relpath(entry.path, root) for entry in walk.entries([str(root)]) if isinstance(entry, walk.Entry)}


@pytest.mark.parametrize("seed", range(12))
def test_files_are_ignored_as_git_ignores_them(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for directory in ("", "a", "a/b", "a/c", "b", "c", "d", "d/e", "d/e/c"):
        (tmp_path / directory).mkdir(exist_ok=True)
        for name in ("a.yml", "b.yml", "x.yml", "c.yaml", "!x.yml"):
            (tmp_path / directory / name).touch()
    for directory in ("", "a", "d"):
        lines = "\n".join(chance.sample(PATTERNS, chance.randint(1, 4)))
        (tmp_path / directory / ".gitignore").write_text(lines + "\n")
    listed = subprocess.run(
        ["git", "-C", tmp_path, "ls-files", "-o", "-z", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")

    assert found(tmp_path) == {name for name in listed if name and not name.endswith(".gitignore")}


def test_the_patterns_of_the_directories_above_hold_in_a_repository(tmp_path: Path) -> None:
    (tmp_path / ".git" / "info").mkdir(parents=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("b.yml\n")
    (tmp_path / ".gitignore").write_text("a/x.yml\n")
    (tmp_path / "a").mkdir()
    for name in ("x.yml", "y.yml", "b.yml"):
        (tmp_path / "a" / name).touch()

    assert found(tmp_path / "a") == {"y.yml"}


def test_links_are_not_followed_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.yml").touch()
    (inside / "a.yml").touch()
    (inside / "out.yml").symlink_to(tmp_path / "secret.yml")
    (inside / "loop").symlink_to(inside)
    (inside / "self.yml").symlink_to("self.yml")

    assert found(inside) == {"a.yml"}
    assert [entry.path for entry in walk.entries([str(inside / "out.yml")]) if isinstance(entry, walk.Entry)]


def test_what_is_no_file_is_passed_over_in_a_directory_and_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yml")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.yml"))
        refused = [walk.read(walk.Entry(str(tmp_path / name), named=True)) for name in ("fifo.yml", "socket.yml")]
        refused.append(walk.read(walk.Entry("/dev/zero", named=True)))

    assert found(tmp_path) == set()
    assert [each.text for each in refused if isinstance(each, Broken)] == [
        "it is a FIFO, no file",
        "it is a socket, no file",
        "it is a character device, no file",
    ]


def test_a_file_that_takes_the_place_of_another_is_read_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "late.yml")

    assert walk.read(walk.Entry(str(tmp_path / "late.yml"), named=False)) is None


def test_a_gigabyte_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "big.yml").open("wb") as file:
        file.truncate(1 << 30)

    refused = walk.read(walk.Entry(str(tmp_path / "big.yml"), named=False))

    assert isinstance(refused, Broken)
    assert refused.text.startswith("1024 MiB are more than")


def test_only_the_beginning_of_an_archive_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"x" * 257 + b"ustar" + bytes(1 << 20))

    source = walk.read(walk.Entry(str(tmp_path / "a.tar"), named=False))

    assert isinstance(source, walk.Source)
    assert (source.whole, source.file, len(source.data)) == (False, str(tmp_path / "a.tar"), walk.HEAD)


def test_a_directory_that_is_an_image_or_holds_a_bundle_is_not_searched_for_files(tmp_path: Path) -> None:
    for name in ("image/oci-layout", "image/index.json", "bundle/config.json", "bundle/rootfs/etc/a.yml", "b/a.yml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    assert found(tmp_path) == {"image", "bundle/config.json", "b/a.yml"}


def test_each_file_is_found_once_however_often_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yml").touch()

    assert len(list(walk.entries([str(tmp_path), str(tmp_path / "a.yml"), str(tmp_path)]))) == 1


def test_what_does_not_exist_is_told() -> None:
    (missing,) = walk.entries(["/nowhere/at/all.yml"])

    assert isinstance(missing, Broken)
    assert missing.message == "/nowhere/at/all.yml: no such file or directory"


def test_standard_input_is_read_whole_and_an_archive_can_be_read_twice() -> None:
    program = (
        "from stockade.audit.documents import walk\n"
        "source = walk.read(walk.Entry('-', named=True))\n"
        "print(source.path, source.whole, len(source.data), len(open(source.file or '/dev/null', 'rb').read()))\n"
    )
    archive = b"x" * 257 + b"ustar" + bytes(100_000)
    said = [
        subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True).stdout.decode()
        for data in (b"a: 1\n" * 50_000, archive)
    ]

    assert said == ["stdin True 250000 0\n", f"stdin False {walk.HEAD} {len(archive)}\n"]
