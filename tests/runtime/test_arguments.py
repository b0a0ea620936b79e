"""The command line: runc's and crun's spellings of it, and the calls of real engines as they were traced."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockade.errors import UsageError
from stockade.sandbox.runtime import arguments, usage
from stockade.sandbox.runtime.arguments import COMMANDS, FLAG, GLOBAL, LIST, NUMBER, NUMBERS, parse

if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation

OPTIONS = [("", name, row) for name, row in GLOBAL.items() if name not in {"help", "version"}] + [
    (command, name, row) for command, (_, _, table) in COMMANDS.items() for name, row in table.items()
]
IDS = [f"{command} --{name}".strip() for command, name, _ in OPTIONS]

#: calls as engines make them: where it was seen, the words, the command, what must be in the options, the arguments
CALLS: list[tuple[str, str, str, dict[str, Any], str]] = [
    (
        "podman create through conmon",
        """--systemd-cgroup --log-format=json --log UD/oci-log create --bundle UD --pid-file UD/pidfile
        --console-socket /tmp/conmon-term.X --preserve-fds 2 --no-pivot ID""",
        "create",
        {
            "bundle": "UD",
            "pid-file": "UD/pidfile",
            "console-socket": "/tmp/conmon-term.X",
            "preserve-fds": 2,
            "no-pivot": True,
        },
        "ID",
    ),
    ("podman start", "start ID", "start", {}, "ID"),
    ("podman stop", "kill ID 15", "kill", {"all": False}, "ID 15"),
    ("podman pause", "pause ID", "pause", {}, "ID"),
    ("podman unpause", "resume ID", "resume", {}, "ID"),
    ("podman update", "update --resources=FILE ID", "update", {"resources": "FILE", "memory": None}, "ID"),
    ("podman rm", "delete --force ID", "delete", {"force": True}, "ID"),
    ("podman's probe", "checkpoint --help", "help", {}, "checkpoint"),
    ("podman info", "--version", "version", {}, ""),
    (
        "podman exec",
        "exec --pid-file F --process P --detach --tty --console-socket S ID",
        "exec",
        {"pid-file": "F", "process": "P", "detach": True, "tty": True, "console-socket": "S"},
        "ID",
    ),
    (
        "containerd create",
        """--root E/moby --log B/log.json --log-format json create --bundle B --pid-file B/init.pid
        --console-socket /tmp/pty1/pty.sock ID""",
        "create",
        {"bundle": "B", "pid-file": "B/init.pid", "console-socket": "/tmp/pty1/pty.sock", "preserve-fds": 0},
        "ID",
    ),
    ("containerd delete", "--root E/moby --log L --log-format json delete ID", "delete", {"force": False}, "ID"),
    (
        "containerd exec",
        "--root E/moby --log L --log-format json exec --process F --console-socket S --detach --pid-file P ID",
        "exec",
        {"process": "F", "detach": True, "pid-file": "P"},
        "ID",
    ),
    ("docker top", "--root R ps --format json ID", "ps", {"format": "json"}, "ID"),
    ("docker update", "--root R update --resources - ID", "update", {"resources": "-"}, "ID"),
    ("docker kill", "--root R kill --all ID 9", "kill", {"all": True}, "ID 9"),
    ("containerd's metrics", "--root R events --stats ID", "events", {"stats": True, "interval": 5.0}, "ID"),
    ("containerd 2's start", "--root R features", "features", {}, ""),
    (
        "rootless buildah",
        "create --bundle /var/tmp/buildah1 --pid-file P --no-new-keyring buildah-buildah1",
        "create",
        {"no-new-keyring": True},
        "buildah-buildah1",
    ),
    ("slurm's RunTimeRun", "--rootless=true --root=/run/user/1/ run a.1.0 -b B", "run", {"bundle": "B"}, "a.1.0"),
    ("slurm's RunTimeKill", "--root=/run/user/1/ kill -a a.1.0", "kill", {"all": True}, "a.1.0"),
    ("crun's podman", "--cgroup-manager disabled create -b UD -f c.json ID", "create", {"config": "c.json"}, "ID"),
    ("people", "exec -t -e A=1 -e B=2 -u 1:2 -g 3 -g 4 -c CAP_KILL ID ls -l --env x", "exec",
     {"tty": True, "env": ("A=1", "B=2"), "user": "1:2", "additional-gids": (3, 4), "cap": ("CAP_KILL",)},
     "ID ls -l --env x"),
    ("people", "ps ID -o pid,args", "ps", {"format": "table"}, "ID -o pid,args"),
    ("people", "update --memory-swap -1 --pids-limit 0x10 ID", "update", {"memory-swap": "-1", "pids-limit": 16}, "ID"),
]  # fmt: skip


def sample(name: str, kind: str) -> tuple[str, object]:
    """Give a value for an option, as text and as it must be read."""
    if kind == FLAG:
        return "true", True
    if kind in (NUMBER, NUMBERS):
        return "7", 7 if kind == NUMBER else (7,)
    if kind == arguments.DURATION:
        return "90s", 90.0
    text = arguments.CHOICES[name][-1] if name in arguments.CHOICES else "-value"
    return text, (text,) if kind == LIST else text


def found(invocation: Invocation, command: str, name: str) -> object:
    if command:
        return invocation.options[name]
    value: object = getattr(invocation, name.replace("-", "_"))
    return value


def words(command: str, option: list[str]) -> list[str]:
    if not command:
        return [*option, "list"]
    return [command, *option, *["ID"] * COMMANDS[command][0]]


@pytest.mark.parametrize(("command", "name", "row"), OPTIONS, ids=IDS)
def test_every_spelling_of_an_option_means_the_same(command: str, name: str, row: arguments.Row) -> None:
    short, kind, _ = row
    text, value = sample(name, kind)
    if name == "root":
        text = value = "/some/where"
    spellings = [[f"--{name}={text}"], [f"-{name}={text}"]]
    spellings += [[f"--{name}"]] if kind == FLAG else [[f"--{name}", text]]
    if short:
        spellings += [
            [f"-{short}={text}"],
            *([[f"-{short}"]] if kind == FLAG else [[f"-{short}", text], [f"-{short}{text}"]]),
        ]

    assert [found(parse(words(command, each)), command, name) for each in spellings] == [value] * len(spellings)


@pytest.mark.parametrize(("command", "name", "row"), [each for each in OPTIONS if each[2][1] == FLAG])
def test_a_flag_can_be_taken_back(command: str, name: str, row: arguments.Row) -> None:
    assert row[2] is False
    assert found(parse(words(command, [f"--{name}", f"--{name}=false"])), command, name) is False


@pytest.mark.parametrize(("who", "line", "command", "options", "rest"), CALLS, ids=[f"{c[0]}: {c[2]}" for c in CALLS])
def test_an_engines_call_is_understood(who: str, line: str, command: str, options: dict[str, Any], rest: str) -> None:
    invocation = parse(line.split())

    assert (invocation.command, " ".join(invocation.arguments)) == (command, rest), who
    assert {name: invocation.options[name] for name in options} == options


def test_global_options_reach_the_invocation() -> None:
    line = "--root /r --log /l --log-format json --debug --systemd-cgroup --rootless true state ID"

    invocation = parse(line.split())

    assert (invocation.root, invocation.log, invocation.log_format) == ("/r", "/l", "json")
    assert (invocation.debug, invocation.systemd_cgroup, invocation.rootless) == (True, True, "true")


@pytest.mark.parametrize(
    ("line", "systemd"),
    [
        ("list", False),
        ("--systemd-cgroup list", True),
        ("--cgroup-manager systemd list", True),
        ("--cgroup-manager cgroupfs list", False),
        ("--systemd-cgroup --cgroup-manager disabled list", False),
    ],
)
def test_either_engine_can_ask_for_systemd(line: str, *, systemd: bool) -> None:
    assert parse(line.split()).systemd_cgroup is systemd


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no command was given"),
        ("crate ID", "there is no command 'crate'"),
        ("--bogus state ID", "there is no option --bogus"),
        ("state --bogus ID", "there is no option --bogus"),
        ("state -b ID", "there is no option -b"),
        ("exec -tb ID ls", "there is no option -tb"),
        ("state", "state takes 1 argument, 0 given"),
        ("state a b", "state takes 1 argument, 2 given"),
        ("kill", "kill takes 1 to 2 arguments, 0 given"),
        ("exec", "exec takes at least 1 argument, 0 given"),
        ("list x", "list takes 0 arguments, 1 given"),
        ("create --bundle", "--bundle needs a value"),
        ("--log", "--log needs a value"),
        ("create --preserve-fds x ID", "--preserve-fds is 'x', which is no number"),
        ("create --preserve-fds -1 ID", "--preserve-fds is -1"),
        ("create --preserve-fds 1_0 ID", "--preserve-fds is '1_0', which is no number"),
        ("exec -g -5 ID ls", "-g is -5"),
        ("--debug=maybe list", "--debug is 'maybe'"),
        ("--log-format xml list", "--log-format is 'xml'"),
        ("--rootless perhaps list", "--rootless is 'perhaps'"),
        ("list --format yaml", "--format is 'yaml'"),
        ("events --interval 5 ID", "--interval is '5', which is no duration"),
        ("events --interval 0s ID", "--interval is '0s', which is no duration"),
        ("state ..", "invalid container ID format: '..'"),
        ("state a/b", "invalid container ID format: 'a/b'"),
        ("state " + "x" * 256, f"invalid container ID format: {'x' * 256!r}"),
        ("--=x list", "there is no option --"),
        ("-=x list", "there is no option -"),
    ],
)
def test_a_mistake_is_named(line: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(line.split())

    assert refused.value.message == message


def test_an_empty_name_of_a_container_is_refused() -> None:
    with pytest.raises(UsageError, match="container id cannot be empty"):
        parse(["state", ""])


@pytest.mark.parametrize(
    ("line", "meant"), [("crate ID", "create"), ("create --bundel x ID", "--bundle"), ("exec --usr 1 ID x", "--user")]
)
def test_a_slip_of_the_finger_is_answered_with_the_word_that_was_meant(line: str, meant: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(line.split())

    assert refused.value.hint == f"did you mean {meant}?"


@pytest.mark.parametrize("line", ["delete ID --force", "delete --force ID", "delete -f -- ID"])
def test_options_may_follow_the_container(line: str) -> None:
    invocation = parse(line.split())

    assert invocation.options["force"]
    assert invocation.arguments == ("ID",)


def test_two_dashes_end_the_options() -> None:
    assert parse(["exec", "ID", "--", "ls"]).arguments == ("ID", "--", "ls")
    assert parse(["exec", "--", "ID", "ls", "-l"]).arguments == ("ID", "ls", "-l")


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("250ms", 0.25), ("1m30s", 90), ("1.5h", 5400), ("2us", 2e-6), ("2µs", 2e-6)]
)
def test_a_duration_is_read_as_go_writes_it(text: str, seconds: float) -> None:
    assert arguments.seconds("--interval", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5x", "-5s", "1.2.3s", "5s3", "infs", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        arguments.seconds("--interval", text)


def test_one_call_does_not_leak_into_the_next() -> None:
    parse(["exec", "-e", "A=1", "-c", "CAP_KILL", "ID", "ls"])

    assert parse(["exec", "ID", "ls"]).options["env"] == ()
    assert parse(["exec", "ID", "ls"]).options["cap"] == ()


def test_the_state_of_a_user_is_below_the_users_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/x")
    assert parse(["list"]).root == "/run/user/x/stockade-runtime"

    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert parse(["list"]).root == "/run/user/1234/stockade-runtime"


def test_a_relative_root_is_of_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")

    assert parse(["--root", "state", "list"]).root == "/usr/state"


@pytest.mark.parametrize(("command", "name"), [(command, name) for command, name, _ in OPTIONS], ids=IDS)
def test_help_says_what_each_option_does(command: str, name: str) -> None:
    assert f"--{name}" in usage.text(command)
    assert command in {"checkpoint", "restore"} or usage.meaning(command, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_commands_help_can_be_typed(command: str) -> None:
    _, about, examples = usage.ABOUT[command]

    assert about in usage.text(command)
    assert examples or command in {"checkpoint", "restore"}
    for _, line in examples:
        if arguments.PROGRAM not in line:
            assert parse(line.split()).command == command


def test_no_line_of_help_is_wider_than_a_terminal() -> None:
    lines = [line for command in ("", *COMMANDS) for line in usage.text(command).splitlines()]

    assert [line for line in lines if len(line) > usage.WIDTH] == []


def runc_options(command: str) -> set[str]:
    """Give the options that runc's own help names."""
    done = subprocess.run(
        [shutil.which("runc") or "runc", command, "--help"], capture_output=True, text=True, check=True
    )
    lines = " ".join(line for line in done.stdout.partition("OPTIONS:")[2].splitlines() if line.startswith("   -"))
    return set(re.findall(r"(?<= --)[a-z][a-z0-9-]*|(?<= -)[a-z](?= )", lines))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in {"completion", "help", "features"}])
def test_every_option_of_runc_is_known(command: str) -> None:
    table = COMMANDS[command][2]
    known = {"help", "h", *table, *[row[0] for row in table.values()]}

    assert {name for name in runc_options(command) if name not in known} == set()


@pytest.mark.parametrize(("command", "name"), [(command, name) for command, name, _ in OPTIONS], ids=IDS)
def test_the_documentation_has_each_command_and_option(command: str, name: str) -> None:
    page = (Path(__file__).resolve().parent.parent.parent / "docs/runtime.md").read_text()
    rows = [line for line in page.splitlines() if re.match(rf"\| (`\w+ ID`, )?`{command}[ `]", line)]

    assert not command or len(rows) == 1
    assert f"`--{name}" in (page if command in {"", "run"} else rows[0]) or command in {"checkpoint", "restore"}
