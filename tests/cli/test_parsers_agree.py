"""The lean parser and click read every command line of `run` alike: the same Request, or both refuse it."""

from __future__ import annotations

import os
import string
from typing import TYPE_CHECKING
from unittest import mock

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockade.errors import UsageError
from stockade.sandbox import arguments, options
from stockade.sandbox.cli import run

if TYPE_CHECKING:
    from stockade.sandbox.options import Option
    from stockade.sandbox.request import Request


def by_click(argv: list[str]) -> Request | None:
    """Give the Request that click's `run` would perform, or None where it refuses or answers by itself."""
    asked: list[Request] = []

    def perform(request: Request) -> int:
        asked.append(request)
        return 0

    with mock.patch("stockade.sandbox.lifecycle.run", perform):
        try:
            run.main(list(argv), standalone_mode=False)
        except (click.ClickException, UsageError):
            return None
    return asked[0] if asked else None


def both(argv: list[str]) -> Request | None:
    lean, clicked = arguments.parse(argv), by_click(argv)
    assert lean == clicked
    return lean


EXAMPLES = {
    "mode": ["rootless", "./my.toml", ""],
    "rootfs": ["/srv", "srv", ""],
    "security_opt": [
        "seccomp=unconfined",
        "no-new-privileges",
        "no-new-privileges:false",
        "systempaths=unconfined",
        "x",
    ],
    "env": ["A=1", "A=", "HOME", "NOT_SET_ANYWHERE", "=x", "--rm"],
    "volume": ["/a:/b", "./a:/b:ro,noexec", "a:/b", "/a", "/a:/b:ro,rw"],
    "mount": ["type=tmpfs,dst=/t", 'type=bind,"src=/a,b",dst=/c,ro', "type=volume,dst=/d"],
    "tmpfs": ["/t2:size=1m", "/t3", "t"],
    "cap_add": ["ALL", "net_admin,CAP_CHOWN", "NETADMIN"],
    "cap_ambient": ["none", "chown", "ALL"],
    "memory": ["64m", "1", "0", "-1"],
    "memory_swap": ["128m", "-1"],
}


def value_of(option: Option) -> st.SearchStrategy[str]:
    known = [option.example.partition(" ")[2], *option.choices, *EXAMPLES.get(option.name, [])]
    if option.is_flag:
        known = ["true", "false", "0", "T", "maybe"]
    return st.sampled_from(known) | st.text(string.ascii_letters + "0123456789:=,./-", max_size=8)


@st.composite
def written(draw: st.DrawFn) -> list[str]:
    """Draw one option in one of the ways in which it can be written."""
    option = draw(st.sampled_from(options.OPTIONS))
    flag = draw(st.sampled_from(option.flags))
    value = draw(value_of(option))
    if option.is_flag:
        return draw(st.sampled_from([[flag], [f"{flag}={value}"]]))
    ways = [[flag, value], [f"{flag}={value}"]]
    if len(flag) == 2:
        cluster = draw(st.sampled_from(["-i", "-t", "-it"]))
        ways += [
            [flag + value],
            [cluster + flag[1] + value],
            [cluster + flag[1], value],
            [f"{cluster}{flag[1]}={value}"],
        ]
    return draw(st.sampled_from(ways))


COMMAND = st.sampled_from(
    [["sh"], ["--", "sh", "-c", "x"], ["sh", "--rm", "--"], ["-", "a"], ["--"], [], ["--", "--x"], [""]]
)
ROOTS = st.sampled_from([["--host"], ["--rootfs", "/r"], ["--host=true"], []])


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    parts = draw(st.lists(written(), max_size=4))
    parts.insert(draw(st.integers(0, len(parts))), draw(ROOTS))
    return [word for part in parts for word in part] + draw(COMMAND)


@settings(max_examples=400, deadline=None)
@given(command_lines())
def test_both_parsers_read_a_command_line_of_options_alike(argv: list[str]) -> None:
    both(argv)


WORDS = [
    *(
        "-",
        "--",
        "-i",
        "-t",
        "-it",
        "-ti=0",
        "-e",
        "-e=A",
        "-eA=1",
        "-itx",
        "-x",
        "--rm",
        "--rm=",
        "--rm=false",
        "--env",
    ),
    *("--env=A=1", "--=", "-=", "--host", "--host=0", "--rootfs", "--no-init", "--init", "-h", "-hname", "-ith=name"),
    *("--memory", "1m", "sh", "-m", "-m=1m", "-im1m", "--help", "--hel", "---", "--memory=", "A=1", "--cap-add", "ALL"),
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS) | st.text("-=eithm ", max_size=4), max_size=6))
def test_both_parsers_read_any_words_alike(argv: list[str]) -> None:
    with mock.patch("click.echo"):  # some lines ask for help
        both(argv)


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.name)
def test_the_example_of_an_option_is_read_by_both_and_changes_the_request(option: Option, tmp_path: object) -> None:
    words = option.example.split()
    if option.name == "env_file":
        words[1] = f"{tmp_path}/app.env"
        with open(words[1], "w", encoding="ascii") as file:
            file.write("A=1\n")
    before = {"rootfs": [], "host": []}.get(option.name, ["--host"])

    request = both([*before, *words, "sh"])

    assert request is not None
    assert request != arguments.parse([*before, "sh"])


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["-it"], "tty", True),
        (["--init=false"], "init", False),
        (["--init", "--init=false"], "init", False),
        (["-i=false"], "interactive", False),
        (["-ti=false"], "tty", True),
        (["-eFOO=1"], "env", (("FOO", "1"),)),
        (["-e=FOO=1"], "env", (("FOO", "1"),)),
        (["-ite", "FOO=1"], "env", (("FOO", "1"),)),
        (["-e", "--rm"], "env", ()),
        (["--env", "A=1", "--env", "A=2"], "env", (("A", "2"),)),
        (["-m", "1m", "--memory=2m"], "memory", 2 << 20),
        (["--rm=false"], "remove", False),
        (["--cap-add", "chown,kill", "--cap-add=CAP_KILL"], "cap_add", ("CAP_CHOWN", "CAP_KILL")),
        (["--cap-ambient", "none"], "cap_ambient", ()),
        (["--read-only=false"], "read_only", False),
    ],
)
def test_options_are_written_as_docker_has_them(argv: list[str], field: str, value: object) -> None:
    request = both(["--host", *argv, "sh"])

    assert request is not None
    assert getattr(request, field) == value


def test_options_after_the_program_are_the_programs() -> None:
    request = both(["--host", "sh", "--rm", "-e", "--", "x"])

    assert request is not None
    assert request.argv == ("sh", "--rm", "-e", "--", "x")
    assert not request.remove


def test_a_double_dash_ends_the_options() -> None:
    request = both(["--host", "--", "--rm", "--"])

    assert request is not None
    assert request.argv == ("--rm", "--")


def test_bytes_that_are_not_text_reach_the_program_unchanged() -> None:
    word = os.fsdecode(b"\xff\xfe")

    request = both(["--host", "-e", f"A={word}", "sh", word])

    assert request is not None
    assert os.fsencode(request.argv[1]) == b"\xff\xfe"
    assert request.env == (("A", word),)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["sh"],
        ["--host"],
        ["--host", "--rootfs", "/r", "sh"],
        ["--host", "--spec", "--plan", "sh"],
        ["--host", "--env"],
        ["--host", "--nothing", "sh"],
        ["--host", "--network", "bridge", "sh"],
    ],
)
def test_what_is_no_command_is_refused_by_both(argv: list[str]) -> None:
    assert both(argv) is None
