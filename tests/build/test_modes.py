"""Mode files: ours, users' own, and the line in the message of a broken one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade import profiles
from stockade.errors import UsageError
from stockade.sandbox import cache, modes

if TYPE_CHECKING:
    from pathlib import Path

NORMAL = profiles.read("mode", "normal").decode()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own.toml"


@pytest.mark.parametrize("name", profiles.names("mode"))
def test_each_mode_states_all_sets_and_all_namespaces(name: str) -> None:
    mode = profiles.mode(name)

    assert set(mode["capabilities"]) == {"bounding", "permitted", "effective", "inheritable", "ambient"}  # type: ignore[call-overload]
    assert set(mode["namespaces"]) == {"user", "mount", "pid", "network", "ipc", "uts", "cgroup", "time"}  # type: ignore[call-overload]


def test_the_three_modes_are_there() -> None:
    assert profiles.names("mode") == ("normal", "privileged", "rootless")
    assert (modes.default_name(0), modes.default_name(1000)) == ("normal", "rootless")


def test_a_file_of_ones_own_is_a_mode(own: Path) -> None:
    own.write_text(NORMAL.replace('seccomp = "default"', 'seccomp = "my.json"').replace('"64m"', "4096"))

    mode = modes.load(str(own))

    assert mode.seccomp == str(own.parent / "my.json")
    assert mode.limits.shm_size == 4096


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("no_new_privileges = true", "no_new_privilege = true", "unknown key 'no_new_privilege'"),
        ("no_new_privileges = true", 'no_new_privileges = "yes"', "expected true or false"),
        ('user = "private"', 'user = "none"', 'expected "private" or "host"'),
        ('mount = "private"', 'mount = "host"', 'expected "private"'),
        ('    "CAP_KILL",', '    "kill",', "expected the name of a capability"),
        ('    "CAP_KILL",', "    5,", "expected the name of a capability"),
        ('shm_size = "64m"', 'shm_size = "64 MB"', "expected a size"),
        ('"/proc/acpi",', '"proc/acpi",', "expected an absolute path"),
        ('"/proc/acpi",', '"/proc/../etc",', "expected an absolute path"),
        ('userns = "auto"', 'userns = "host"', 'expected "auto" or "keep-id" or "nomap"'),
        ("uidmap = []", 'uidmap = ["0:1"]', "expected CONTAINER:HOST:SIZE"),
        ('type = "devpts"', 'type = "ext4"', 'expected "proc" or'),
        ("[id_mapping]", "[id_maps]", "unknown key 'id_maps'"),
        ("[limits]", "[limits]\npids = 0", "expected a whole number from 1"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_line(own: Path, old: str, new: str, message: str) -> None:
    assert old in NORMAL
    text = NORMAL.replace(old, new, 1)
    own.write_text(text)

    with pytest.raises(UsageError) as refused:
        modes.load(str(own))

    assert message in refused.value.message
    _, line, _ = refused.value.message.removeprefix(str(own)).split(":", 2)
    # a list of several lines is known by the line of its key
    shown = text.splitlines()[int(line) - 1]
    assert shown.split("=")[0].strip() in new or shown.split("=")[0].strip() in refused.value.message


def test_a_line_in_an_array_of_tables_is_that_of_its_own_table(own: Path) -> None:
    text = NORMAL.replace('source = "devpts"', "source = 5")
    own.write_text(text)

    with pytest.raises(UsageError) as refused:
        modes.load(str(own))

    line = next(number for number, each in enumerate(text.splitlines(), 1) if each == "source = 5")
    assert refused.value.message.startswith(f"{own}:{line}: [mounts] source")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NORMAL.replace("[capabilities]", "[x"), "not TOML"),
        (NORMAL.partition("[capabilities]")[0], "section [capabilities] is missing"),
        (NORMAL.partition("[[mounts]]")[0], "[[mounts]] are missing"),
        (NORMAL.replace("devices = []", ""), "devices is missing"),
        (NORMAL.replace("CAP_KILL", "CAP_FLY"), "unknown capability 'CAP_FLY'"),
        (NORMAL.replace("uidmap = []", 'uidmap = ["0:1:5", "3:9:5"]'), "overlap"),
        ("x" * (1 << 19), "are no mode file"),
    ],
)
def test_a_file_that_is_no_mode_is_refused(own: Path, text: str, message: str) -> None:
    own.write_text(text)

    with pytest.raises(UsageError) as refused:
        modes.load(str(own))

    assert message in refused.value.message
    assert str(own) in refused.value.message


def test_a_name_that_is_no_mode_is_answered_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="No such file") as refused:
        modes.load("normall")

    assert "normal, privileged, rootless" in refused.value.hint


def test_a_changed_file_is_not_answered_from_the_cache(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "directory", lambda: str(tmp_path / "cache"))
    own.write_text(NORMAL)
    first = modes.load(str(own))
    assert list((tmp_path / "cache/mode").iterdir())

    assert modes.load(str(own)) == first
    own.write_text(NORMAL.replace("no_new_privileges = true", "no_new_privileges = false"))
    assert modes.load(str(own)) == first.replace(no_new_privileges=False)
