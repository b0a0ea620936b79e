"""The command as users meet it: help, mistakes, exit codes, streams."""

from __future__ import annotations

import difflib
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import stockade as package
from stockade import cli, commands
from stockade.errors import StockadeError, describe
from stockade.sandbox import lifecycle, options

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

HELP = Path(__file__).parent / "help"
ROOT = Path(__file__).resolve().parent.parent.parent
WIDE = {"COLUMNS": "100"}


def test_version_is_the_packages(stockade: Run) -> None:
    done = stockade("--version")

    assert (done.returncode, done.stdout) == (0, f"stockade {package.__version__}\n")


@pytest.mark.parametrize("command", ["", "run", "gc", "info", "completion"])
def test_help_is_as_recorded(stockade: Run, command: str) -> None:
    """Record anew with STOCKADE_RECORD=1."""
    done = stockade(*command.split(), "--help", env=WIDE)
    file = HELP / f"{command or 'stockade'}.txt"
    if os.environ.get("STOCKADE_RECORD") == "1":
        file.write_text(done.stdout, "utf-8")

    assert done.returncode == 0
    assert done.stderr == ""
    recorded = file.read_text("utf-8")
    assert done.stdout == recorded, "\n".join(difflib.unified_diff(recorded.split("\n"), done.stdout.split("\n")))


@pytest.mark.parametrize("command", list(commands.COMMANDS))
def test_every_command_shows_examples_and_its_line_in_the_groups_help(stockade: Run, command: str) -> None:
    done = stockade(command, "--help", env=WIDE)

    assert "\nExamples:\n" in done.stdout
    assert commands.COMMANDS[command][1] in stockade("--help", env=WIDE).stdout


def test_the_help_of_run_names_every_option(stockade: Run) -> None:
    text = stockade("run", "--help", env=WIDE).stdout

    for option in options.OPTIONS:
        for flag in option.flags:
            assert re.search(rf"(^|[ ,]){re.escape(flag)}\b", text, re.MULTILINE), flag


def test_the_groups_help_imports_none_of_the_commands() -> None:
    code = "import sys; from stockade.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "stockade.sandbox.cli" not in done.stderr
    assert "stockade.audit" not in done.stderr
    assert "rich" not in done.stderr


HEAVY = frozenset(
    (
        *(
            "click",
            "re",
            "json",
            "typing",
            "dataclasses",
            "enum",
            "pathlib",
            "socket",
            "subprocess",
            "logging",
            "inspect",
        ),
        *("tomllib", "threading", "functools", "contextlib", "argparse", "signal", "tempfile", "difflib"),
    )
)


def test_a_plain_run_is_read_without_any_slow_import() -> None:
    code = (
        "import sys; from stockade import cli; from stockade.sandbox import arguments;"
        "argv = '--host -it --rm -m 64m -e A=1 -v /a:/b:ro --mount type=tmpfs,dst=/t --ulimit nofile=9 --cap-add KILL"
        " --stop-signal QUIT --uidmap 0:1:1 --security-opt seccomp=unconfined --timeout 1s true'.split();"
        "assert arguments.parse(argv); print(*sys.modules)"
    )
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert HEAVY.isdisjoint(done.stdout.split())


def test_the_completion_variable_has_one_name() -> None:
    assert cli.COMPLETE == commands.COMPLETE


def test_a_plain_run_goes_straight_to_the_lifecycle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "run", lambda request: 40 + len(request.argv))
    monkeypatch.setattr(commands, "dispatch", lambda _: pytest.fail("click was asked"))

    assert cli.main(["run", "--host", "a", "b"]) == 42


@pytest.mark.parametrize(
    ("arguments", "code", "message", "remedy"),
    [
        ("rnu", 2, "there is no command 'rnu'", "did you mean run?"),
        ("--foo", 2, "there is no option --foo", "see 'stockade --help'"),
        ("run --host --bogus sh", 125, "there is no option --bogus", "see 'stockade run --help'"),
        ("completion tcsh", 2, "'tcsh' is not one of", "see 'stockade completion --help'"),
        ("info --formt json", 2, "there is no option --formt", "did you mean --format?"),
        ("run", 125, "PROGRAM is missing", "name it after the options"),
        ("run sh", 125, "no root file system", "--rootfs"),
        ("run --host --memry 1m sh", 125, "there is no option --memry", "did you mean --memory?"),
        ("run --privileged --host sh", 125, "there is no option --privileged", "write --mode privileged"),
        ("run -d --host sh", 125, "there is no option -d", "in the background"),
        ("run --host -e", 125, "-e needs a value", "see 'stockade run --help'"),
        ("run --host --memory 64q sh", 125, "--memory 64q: expected a size", "for example --memory 64m"),
        ("run --host --cap-add NETADMIN sh", 125, "'NETADMIN' is not a capability", "did you mean CAP_NET_ADMIN?"),
        ("run --host --network bridge sh", 125, "--network bridge: expected none or host", "--network none"),
        ("run --host --userns host --uidmap 0:1:1 sh", 125, "both decide the id mapping", "give one of them"),
        ("run --host --uidmap 0:1:2 --uidmap 1:5:1 sh", 125, "overlap", "see 'stockade run --help'"),
        ("run --host -m 2m --memory-swap 1m sh", 125, "memory and swap together", "give more"),
        ("run --host --tmpfs /x -v /usr:/x sh", 125, "/x", ""),
        ("run --rootfs /nowhere sh", 125, "rootfs /nowhere", "unpacked root file system"),
        ("run --host --mode strange sh", 125, "mode 'strange'", "use one of"),
        ("run --host --init=maybe sh", 125, "--init maybe: expected true or false", "--init"),
    ],
)
def test_a_mistake_is_answered_with_one_line_and_a_remedy(
    stockade: Run, arguments: str, code: int, message: str, remedy: str
) -> None:
    done = stockade(*arguments.split())

    assert done.returncode == code
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("stockade: ")
    assert message in first
    assert second.startswith("  remedy: ")
    assert remedy in second


def test_no_command_at_all_shows_the_help_and_is_a_mistake(stockade: Run) -> None:
    done = stockade()

    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


def test_control_characters_of_a_name_do_not_reach_the_terminal(stockade: Run) -> None:
    done = stockade("run", "--host", "--memory", "\x1b[2J\n64", "sh")

    assert "\x1b" not in done.stderr
    assert "\\x1b[2J\\n64" in done.stderr


def on_a_terminal(arguments: list[str], **environment: str) -> str:
    """Give what the command writes to a terminal on standard error."""
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT), **environment}
    subprocess.run([sys.executable, "-m", "stockade", *arguments], stderr=slave, env=env, check=False, timeout=30)
    os.close(slave)
    text = b""
    try:
        while chunk := os.read(master, 4096):
            text += chunk
    except OSError:
        pass
    os.close(master)
    return text.decode()


def test_errors_are_coloured_on_a_terminal_only_and_never_against_the_users_word(stockade: Run) -> None:
    os.environ.pop("NO_COLOR", None)

    assert "\x1b[1;31mstockade:" in on_a_terminal(["run", "sh"])
    assert "\x1b" not in on_a_terminal(["run", "sh"], NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(["run", "sh"], TERM="dumb")
    assert "\x1b" not in stockade("run", "sh").stderr


def test_a_reader_that_goes_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "stockade", "run", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    os.close(write)

    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("closed", [0, 1, 2])
@pytest.mark.parametrize(("arguments", "code"), [("run sh", 125), ("audit --list-rules", 0), ("audit self", 0)])
def test_a_closed_standard_stream_is_no_traceback(arguments: str, code: int, closed: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m stockade {arguments} {closed}>&-', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code
    assert "Traceback" not in done.stderr


def raising(error: BaseException) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "command", "code", "told"),
    [
        (KeyboardInterrupt(), "run", 130, ""),
        (StockadeError("no"), "run", 125, "stockade: no\n"),
        (StockadeError("no", exit_code=127), "run", 127, "stockade: no\n"),
        (StockadeError("no"), "audit", 4, "stockade: no\n"),
        (StockadeError("nothing there", exit_code=3), "audit", 3, "stockade: nothing there\n"),
        (PermissionError(13, "Permission denied", "/x"), "run", 125, "stockade: /x: Permission denied\n"),
        (PermissionError(13, "Permission denied", "/x"), "audit", 4, "stockade: /x: Permission denied\n"),
    ],
)
def test_a_failure_has_the_exit_code_of_its_command(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, command: str, code: int, told: str
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(lifecycle, "run", raising(error))
    monkeypatch.setattr(commands, "dispatch", raising(error))

    assert cli.main([command, "--host", "true"]) == code
    assert stderr.getvalue() == told


def test_a_fault_of_ours_shows_where_and_is_no_exit_code_of_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lifecycle, "run", raising(ZeroDivisionError("oops")))

    assert cli.main(["run", "--host", "true"]) == 125
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "stockade: internal error: ZeroDivisionError: oops\n  remedy: please report" in told


def test_every_line_of_a_hint_is_a_remedy() -> None:
    assert describe(StockadeError("a", hint="b\nc")) == "stockade: a\n  remedy: b\n  remedy: c"


def test_info_tells_the_same_as_text_and_as_json(stockade: Run) -> None:
    told = json.loads(stockade("info", "--format", "json").stdout)["facts"]
    text = stockade("info").stdout

    assert {"caller", "modes", "ids", "kernel", "limits"} == {fact["group"] for fact in told}
    for fact in told:
        assert fact["name"] in text
        assert fact["ok"] is not False or fact["remedy"], f"{fact['name']} has no remedy"


def test_info_as_a_user_names_causes_and_remedies(as_user: Run) -> None:
    done = as_user([sys.executable, "-m", "stockade", "info", "--format", "json"])
    told = {fact["name"]: fact for fact in json.loads(done.stdout)["facts"]}

    assert told["rootless"]["ok"], told["rootless"]
    assert told["capabilities"]["detail"] == "none held"
    assert all(fact["remedy"] for fact in told.values() if fact["ok"] is False)


def test_spec_and_plan_need_no_privilege_and_start_nothing(as_user: Run, public_tmp: Path) -> None:
    proof = public_tmp / "ran"
    public_tmp.chmod(0o777)
    for show in ("--spec", "--plan"):
        arguments = ["run", "--host", "-v", f"{public_tmp}:/here", show, "touch", "/here/ran"]
        done = as_user([sys.executable, "-m", "stockade", *arguments])

        assert done.returncode == 0, done.stderr
        assert not proof.exists()
        if show == "--spec":
            assert json.loads(done.stdout)["process"]["args"] == ["touch", "/here/ran"]
        else:
            assert "# " in done.stdout
