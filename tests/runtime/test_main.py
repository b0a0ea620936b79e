"""What a call of `stockade-runtime` leaves on standard output, on standard error, in the log, and as its exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import stockade
from stockade.errors import CannotExecute, ProgramNotFound, StockadeError
from stockade.sandbox.runtime import boot, logs, main

if TYPE_CHECKING:
    from collections.abc import Callable

    from stockade.sandbox.runtime.arguments import Invocation

    Capture = pytest.CaptureFixture[str]
    Failing = Callable[[BaseException], None]

ROOT = Path(__file__).resolve().parent.parent.parent
BOOT = ROOT / "stockade/sandbox/runtime/boot.py"
# What the lean path must not bring: each costs milliseconds of a command that lives for twenty.
HEAVY = {
    *("click", "collections", "contextlib", "dataclasses", "enum", "functools", "importlib", "inspect", "json"),
    *("logging", "pathlib", "re", "shutil", "signal", "site", "socket", "subprocess", "tempfile", "threading"),
    *("tomllib", "typing"),
}


def call(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Call the command as it starts itself: isolated, without site."""
    argv = [sys.executable, "-I", "-S", str(BOOT), *map(str, words)]
    defaults: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    return subprocess.run(argv, check=False, **(defaults | options))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Give a function after whose call every command raises what it was given."""

    def fail(error: BaseException) -> None:
        def run(_: Invocation) -> int:
            raise error

        module = types.ModuleType("failing")
        module.run = run  # type: ignore[attr-defined] # the stubs leave it out
        for name in ("create", "run", "exec_", "state"):
            monkeypatch.setitem(sys.modules, f"stockade.sandbox.runtime.commands.{name}", module)

    return fail


@pytest.mark.parametrize("name", ["--version", "-v"])
def test_the_version_is_told_line_by_line_as_dockerd_and_podman_read_it(name: str) -> None:
    first, *rest = call(name).stdout.splitlines()

    assert first == f"stockade-runtime version {stockade.__version__}"
    assert f"commit: v{stockade.__version__}" in rest
    assert "spec: 1.2.0" in rest


def test_a_failure_goes_to_standard_error_with_its_remedy() -> None:
    done = call("crate", "x")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "stockade-runtime: there is no command 'crate'\n  remedy: did you mean create?\n"


def test_a_failure_is_one_line_of_json_in_the_log_and_words_on_standard_error(tmp_path: Path) -> None:
    done = call("--log", tmp_path / "log", "--log-format=json", "state", "a/b")

    entry = json.loads((tmp_path / "log").read_text())
    assert done.returncode == 1
    assert list(entry) == ["level", "msg", "time"]
    assert entry["level"] == "error"
    assert entry["msg"].startswith("invalid container ID format: 'a/b'; ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["time"])
    assert done.stderr.startswith("stockade-runtime: invalid container ID format: 'a/b'\n")


def test_without_a_file_the_json_goes_to_standard_error() -> None:
    done = call("--log-format", "json", "state", "a/b")

    assert json.loads(done.stderr)["level"] == "error"


def test_the_log_is_added_to_and_read_by_everybody(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        call("--log", log, "state", "a/b", umask=0o002)

    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r'time="[^"]+" level=error msg="invalid container ID format: .*"', lines[0])
    assert log.stat().st_mode & 0o777 == 0o644


def test_a_mask_that_would_lock_the_owner_out_does_not(tmp_path: Path) -> None:
    call("--log", tmp_path / "log", "state", "a/b", umask=0o777)

    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_can_not_be_written_is_a_failure_of_its_own(tmp_path: Path) -> None:
    done = call("--log", tmp_path / "none/log", "list")

    assert done.returncode == 1
    assert done.stderr.startswith(f"stockade-runtime: {tmp_path}/none/log: No such file or directory\n")


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "message", ['a "b" \\c', "two\nlines\r\t", "\x1b[31mred\x7f", "naïve ☃ 😀 \U000e0041", "\u2028\u202e", "\udcff"]
)
def test_whatever_a_message_holds_is_one_line_that_json_can_read(form: str, message: str) -> None:
    line = logs.line(form, "error", message, 0)

    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert "1970-01-01T00:00:00Z" in line
    quoted = re.search(r'msg"?[:=]("(?:[^"\\]|\\.)*")', line)
    assert quoted is not None
    assert json.loads(quoted[1]) == message.replace("\udcff", "\ufffd")


def test_a_warning_is_no_error_and_stays_out_of_the_programs_own_lines(tmp_path: Path, capfd: Capture) -> None:
    log = logs.Log(str(tmp_path / "log"), "json")
    log.open()
    log.write("warning", "so and so")
    log.write("debug", "not asked for")
    log.close()

    assert [json.loads(line)["level"] for line in (tmp_path / "log").read_text().splitlines()] == ["warning"]
    assert capfd.readouterr().err == ""


def test_a_warning_without_a_log_is_told_on_standard_error(capfd: Capture) -> None:
    logs.Log().write("warning", "so and so", "do this")

    assert capfd.readouterr().err == "stockade-runtime: warning: so and so\n  remedy: do this\n"


def test_debug_lines_go_to_the_log_alone(tmp_path: Path, capfd: Capture) -> None:
    log = logs.Log(str(tmp_path / "log"), "json", debug=True)
    log.open()
    log.write("debug", "a detail")
    log.close()

    assert json.loads((tmp_path / "log").read_text())["msg"] == "a detail"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "error", "code"),
    [
        ("create x", StockadeError("no"), 1),
        ("create x", ProgramNotFound("no"), 1),
        ("state x", OSError(2, "No such file or directory", "/x"), 1),
        ("run x", StockadeError("no"), 1),
        ("run x", ProgramNotFound("no"), 127),
        ("run x", CannotExecute("no"), 126),
        ("run --detach x", ProgramNotFound("no"), 1),
        ("exec x ls", StockadeError("no"), 255),
        ("exec x ls", ProgramNotFound("no"), 127),
        ("exec x ls", CannotExecute("no"), 126),
        ("exec --detach x ls", ProgramNotFound("no"), 255),
        ("state x", ZeroDivisionError("oh"), 1),
        ("state x", KeyboardInterrupt(), 130),
        ("state x", BrokenPipeError(), 141),
    ],
)
def test_a_failure_has_the_exit_code_that_engines_expect(
    failing: Failing, command: str, error: BaseException, code: int
) -> None:
    failing(error)

    assert main.main(command.split()) == code


def test_a_fault_of_ours_is_told_without_a_traceback(failing: Failing, capfd: Capture) -> None:
    failing(ZeroDivisionError("oh"))
    main.main(["state", "x"])

    told = capfd.readouterr().err
    assert told.startswith("stockade-runtime: internal error: ZeroDivisionError: oh\n")
    assert "Traceback" not in told


def test_with_debug_a_fault_of_ours_has_its_traceback(failing: Failing, capfd: Capture) -> None:
    failing(ZeroDivisionError("oh"))
    main.main(["--debug", "state", "x"])

    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        # Podman: "executable file not found in" or "no such file or directory" is 127, dockerd: the same
        (ProgramNotFound("executable file 'x' not found in $PATH"), "no such file or directory"),
        (ProgramNotFound("/x: No such file or directory"), "no such file or directory"),
        (CannotExecute("'/x' can't be executed: Permission denied"), "permission denied"),
    ],
)
def test_a_program_that_can_not_run_is_told_in_the_words_that_engines_look_for(
    failing: Failing, tmp_path: Path, error: StockadeError, words: str
) -> None:
    failing(error)
    main.main(["--log", str(tmp_path / "log"), "--log-format", "json", "create", "x"])

    assert json.loads((tmp_path / "log").read_text())["msg"].partition(";")[0].lower().count(words) == 1


def test_a_reader_that_goes_away_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = call("--help", stdout=gone, capture_output=False, stderr=subprocess.PIPE)

    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_standard_stream_is_not_taken_by_the_log(tmp_path: Path) -> None:
    script = 'exec "$@" 0<&- 1>&- 2>&-'
    argv = [sys.executable, "-I", "-S", str(BOOT), "--log", str(tmp_path / "log"), "--log-format", "json", "--version"]
    done = subprocess.run(["sh", "-c", script, "sh", *argv], check=False)

    assert done.returncode == 0
    assert (tmp_path / "log").read_text() == ""


def test_output_is_utf8_whatever_the_locale_says() -> None:
    done = call("state", "é", env={"LC_ALL": "C"})

    assert "é" in done.stderr


@pytest.mark.parametrize("path", [BOOT, ROOT / "sandbox/runtime/boot.py"])
def test_it_starts_from_a_source_tree_by_either_path(path: Path) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", path, "--version"], capture_output=True, text=True, check=False)

    assert done.stdout.startswith("stockade-runtime version ")


def test_it_finds_its_package_as_installed_and_in_a_tree_called_stockade(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    tree = tmp_path / "stockade"
    for folder in (installed / "stockade", tree / "stockade"):
        folder.mkdir(parents=True)
        (folder / "errors.py").touch()

    assert boot.home(f"{installed}/stockade/sandbox/runtime/boot.py") == str(installed)
    assert boot.home(f"{tree}/sandbox/runtime/boot.py") == str(tree)
    assert boot.home(f"{tree}/stockade/sandbox/runtime/boot.py") == str(tree)


@pytest.mark.parametrize(
    "words", [["--version"], ["state", "nobody"], ["kill", "nobody"], ["start", "nobody"]], ids=" ".join
)
def test_the_lean_path_imports_nothing_that_costs_milliseconds(words: list[str], tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", "-X", "importtime", str(BOOT), "--root", str(tmp_path), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    imported = {match[1] for match in re.finditer(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)}

    assert "stockade.sandbox.runtime.main" in imported
    assert {name for name in imported if name.partition(".")[0] in HEAVY} == set()


@pytest.mark.parametrize("command", ["checkpoint", "restore"])
def test_a_checkpoint_is_refused_with_the_reason(command: str) -> None:
    done = call("--criu", "/nonexistent/criu", command, "x")

    assert done.returncode == 1
    assert done.stderr.startswith(
        f"stockade-runtime: {command} is not supported by this runtime (criu is not installed)\n  remedy: "
    )


def test_podmans_probe_for_checkpoints_is_answered_with_no() -> None:
    done = call("checkpoint", "--help")

    assert done.returncode == 1
    assert "--image-path" in done.stdout


def test_help_is_printed_for_all_and_for_each() -> None:
    assert "create" in call("--help").stdout
    assert call("help", "create").stdout == call("create", "--help").stdout == call("create", "-?").stdout
