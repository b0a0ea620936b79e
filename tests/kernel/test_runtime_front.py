"""What stockade-runtime does without Python, which must be what Python would do, and how it leaves the rest to it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.bundles import write
from tests.kernel.fronts import NEEDS_PYTHON, Commands, pid_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel


@pytest.fixture
def commands(public_tmp: Path) -> Iterator[Commands]:
    made = Commands(public_tmp)
    yield made
    for name in os.listdir(made.root) if made.root.exists() else ():
        made.python("delete", "--force", name)


@pytest.fixture
def bundle(public_tmp: Path, rootfs: Path) -> Path:
    annotations = {"a": 'quoted " and \\ and ü'}
    return write(public_tmp / "bundle", rootfs, cgroupsPath=f"/{public_tmp.name}", annotations=annotations)


def groups(name: str) -> list[Path]:
    """Give the control groups of that name at the top of any hierarchy."""
    top = Path("/sys/fs/cgroup")
    return [*top.glob(name), *top.glob(f"*/{name}")]


def test_a_whole_life_but_its_beginning_needs_no_python(commands: Commands, bundle: Path, public_tmp: Path) -> None:
    commands.whole.ok("create", "--bundle", bundle, "c")
    assert commands.alone.status("c") == "created"
    assert groups(public_tmp.name)
    commands.alone.ok("start", "c")
    assert commands.alone.status("c") == "running"
    pid = pid_of(commands.alone)
    commands.alone.ok("kill", "c", "USR1")  # ignored by the first process of a PID namespace
    commands.alone.ok("delete", "--force", "c")
    assert not Path(f"/proc/{pid}/root").exists()
    assert not (commands.root / "c").exists()
    assert not groups(public_tmp.name)
    commands.alone.ok("delete", "--force", "c")  # not there: no error


@pytest.mark.parametrize(
    "words", [("list",), ("--debug", "state", "c"), ("state", "nobody"), ("frobnicate",), ("start",)]
)
def test_what_it_does_not_do_needs_python(commands: Commands, words: tuple[str, ...]) -> None:
    commands.root.mkdir(mode=0o700)
    done = commands.alone(*words)
    assert done.returncode == 1
    assert NEEDS_PYTHON in done.stderr


def test_the_state_is_told_in_the_same_bytes(commands: Commands, bundle: Path) -> None:
    commands.whole.ok("create", "--bundle", bundle, "c")
    states = []
    for step in ((), ("start", "c"), ("pause", "c"), ("resume", "c"), ("kill", "c", "KILL")):
        if step:
            commands.whole.ok(*step)
        if "KILL" in step:
            wait_for_end(commands)
        assert commands.alone.ok("state", "c") == commands.python.ok("state", "c")
        states.append(commands.alone.status("c"))
    assert states == ["created", "running", "paused", "running", "stopped"]


def wait_for_end(commands: Commands) -> None:
    while commands.python.status("c") != "stopped":
        pass


def test_a_program_that_cannot_be_executed_is_told_in_pythons_words(
    commands: Commands, public_tmp: Path, rootfs: Path
) -> None:
    (rootfs / "bin/late").write_text("#!/bin/nowhere\n")
    (rootfs / "bin/late").chmod(0o755)
    commands.whole.ok(
        "create",
        "--bundle",
        write(public_tmp / "late", rootfs, args=("/bin/late",), cgroupsPath=f"/{public_tmp.name}"),
        "c",
    )
    log = public_tmp / "log"
    done = commands.whole("--log", str(log), "--log-format", "json", "start", "c")
    assert done.returncode == 1
    assert "no such file or directory" in json.loads(log.read_text())["msg"]
    wait_for_end(commands)
    commands.alone.ok("delete", "c")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"pid":', '"pid":-'),
        lambda text: text.replace('"pid":', '"pid":1.'),
        lambda text: text.replace('"cgroups":[', '"cgroups":["../x",'),
        lambda text: text[:0] + "[" * 100_000,
        lambda text: text[:0],
        lambda text: text.replace("\n", " " * 300_000 + "\n"),
        lambda text: text.replace('"id"', '"\\u0069d"'),
        lambda text: text.replace('"pid":', '"pid":1,"pid":'),
        lambda text: text.replace('"cgroups":[', '"cgroups":["cpu:/sys/fs/cgroup/cpu/c/../d",'),
        lambda text: text.replace("quoted", "q\u00fcoted"),
        lambda text: text.replace("quoted", "q\x01oted"),
        lambda text: text.replace("quoted", "q\\xoted"),
        lambda text: text.replace('"start"', '"begin"'),
        lambda text: text.replace("\n", ",\n"),
        lambda text: text.replace("\n", "}\n"),
    ],
)
def test_a_state_that_is_not_as_it_writes_it_is_left_to_python(
    commands: Commands, bundle: Path, damage: object
) -> None:
    commands.whole.ok("create", "--bundle", bundle, "c")
    place = commands.root / "c/state.json"
    text = place.read_text()
    place.write_text(damage(text))  # type: ignore[operator] # a function of the table above
    try:
        said = [
            commands.alone(*words).stderr for words in (("state", "c"), ("start", "c"), ("kill", "c"), ("delete", "c"))
        ]
    finally:
        place.write_text(text)
    assert all(NEEDS_PYTHON in each for each in said)
    commands.alone.ok("delete", "c")


def test_a_later_process_with_the_same_pid_is_let_alone(commands: Commands, bundle: Path) -> None:
    commands.whole.ok("create", "--bundle", bundle, "c")
    place = commands.root / "c/state.json"
    state = json.loads(place.read_text())
    with subprocess.Popen(["sleep", "60"]) as other:
        place.write_text(json.dumps(state | {"pid": other.pid}, separators=(",", ":")) + "\n")
        assert commands.alone.status("c") == "stopped"
        assert NEEDS_PYTHON in commands.alone("kill", "c", "KILL").stderr
        place.write_text(json.dumps(state, separators=(",", ":")) + "\n")
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("names", [("python", "alone"), ("alone", "python"), ("alone", "alone")])
def test_of_two_deletes_at_once_one_deletes(commands: Commands, bundle: Path, names: tuple[str, str]) -> None:
    commands.whole.ok("create", "--bundle", bundle, "c")
    commands.alone.ok("start", "c")
    null = subprocess.DEVNULL
    runtimes = [getattr(commands, name) for name in names]
    both = [subprocess.Popen([*each.command, "delete", "--force", "c"], stdout=null, stderr=null) for each in runtimes]
    assert 0 in {each.wait(20) for each in both}
    assert not (commands.root / "c").exists()


def test_a_root_that_others_can_write_to_is_left_to_python(commands: Commands, bundle: Path) -> None:
    commands.whole.ok("create", "--bundle", bundle, "c")
    commands.root.chmod(0o777)
    assert NEEDS_PYTHON in commands.alone("delete", "--force", "c").stderr
    commands.root.chmod(0o700)


def test_a_root_with_a_long_name_serves_as_well(commands: Commands, bundle: Path, public_tmp: Path) -> None:
    long = str(public_tmp / ("d" * 200) / "root")
    for each in (commands.whole, commands.alone, commands.python):
        each.command[each.command.index("--root") + 1] = long
    commands.root = Path(long)
    commands.whole.ok("create", "--bundle", bundle, "c")
    commands.alone.ok("start", "c")
    commands.alone.ok("delete", "--force", "c")


def test_a_hook_after_the_end_is_run_by_python(commands: Commands, bundle: Path, public_tmp: Path) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["hooks"] = {"poststop": [{"path": "/bin/touch", "args": ["touch", str(public_tmp / "ran")]}]}
    (bundle / "config.json").write_text(json.dumps(config))
    commands.whole.ok("create", "--bundle", bundle, "c")
    assert NEEDS_PYTHON in commands.alone("delete", "--force", "c").stderr
    commands.whole.ok("delete", "--force", "c")
    assert (public_tmp / "ran").exists()
