"""The file that holds all modules of a command: what is served from it, and what is not any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Imports `sample.part` as boot.py would import ours, and says what it holds and where it came from.
PROGRAM = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from stockade.sandbox.runtime import modules
modules._PACKAGE = "sample"
modules.path = lambda: sys.argv[2] + "/modules"
modules.install()
import sample.part
import sample.other
print(sample.part.value, sample.part.__file__, sample.part.__spec__.loader is modules.Modules)
modules.update()
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Give a package with two modules."""
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample/__init__.py").write_text("")
    (tmp_path / "sample/part.py").write_text("value = 1\n")
    (tmp_path / "sample/other.py").write_text("")
    return tmp_path


def imported(package: Path) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, str(ROOT), str(package)],
        capture_output=True, text=True, check=True, env=environment, timeout=60,
    )  # fmt: skip
    return done.stdout.split()


def test_the_second_start_finds_all_in_one_file(package: Path) -> None:
    place = str(package / "sample/part.py")
    assert imported(package) == ["1", place, "False"]
    assert imported(package) == ["1", place, "True"]


def test_a_module_that_was_changed_is_not_served(package: Path) -> None:
    imported(package)
    part = package / "sample/part.py"
    part.write_text("value = 2222\n")
    assert imported(package) == ["2222", str(part), "False"]
    assert imported(package) == ["2222", str(part), "True"]


def test_a_module_with_another_time_is_not_served(package: Path) -> None:
    imported(package)
    part = package / "sample/part.py"
    part.write_text("value = 3\n")
    os.utime(part, (1, 1))
    assert imported(package)[0] == "3"


@pytest.mark.parametrize("damage", [b"", b"garbage", b"{", b"\xff" * 100])
def test_a_damaged_file_is_made_again(package: Path, damage: bytes) -> None:
    imported(package)
    (package / "modules").write_bytes(damage)
    assert imported(package)[2] == "False"
    assert imported(package)[2] == "True"


def test_a_truncated_file_is_made_again(package: Path) -> None:
    imported(package)
    data = (package / "modules").read_bytes()
    (package / "modules").write_bytes(data[: len(data) // 2])
    assert imported(package)[0] == "1"
    assert imported(package)[2] == "True"


def test_the_file_is_no_link_that_somebody_left(package: Path) -> None:
    imported(package)
    (package / "elsewhere").write_bytes((package / "modules").read_bytes())
    (package / "modules").unlink()
    (package / "modules").symlink_to("elsewhere")
    assert imported(package)[2] == "False"
