"""The command `stockade-runtime`: dispatch by name, how errors are told, and exit codes.

The exit code of a failure is 1, and 255 of `exec`, as runc's are; a program that was not found or may not be executed
gives 127 or 126 where its exit code would have been ours (`run` and `exec` that don't detach).
"""

from __future__ import annotations

import gc
import os
import sys

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.runtime import arguments, logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockade.sandbox.runtime.arguments import Invocation

#: modules of commands whose name is a word of Python or of its library
_RENAMED = {"exec": "exec_", "list": "list_", "help": "help_"}
#: whose exit code is the program's own unless they detach
_FOREGROUND = ("run", "exec")


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and give the exit code; the entry point of the command.

    Without `argv` it takes the process's own and ends the process.
    """
    gc.disable()  # a command lives for milliseconds and makes little that could be thrown away
    _fill_standard_streams()
    # A mask of 0777 would keep even the owner out of the state; a stricter one for others than 022 is kept.
    os.umask(os.umask(0o022) & 0o077 | 0o022)
    code = _guarded(sys.argv[1:] if argv is None else list(argv))
    logs.current.close()
    if argv is None:
        if "stockade.sandbox.runtime.modules" in sys.modules:
            sys.modules["stockade.sandbox.runtime.modules"].update()
        os._exit(code)  # taking the interpreter apart costs 3 ms and frees what goes with the process anyway
    return code


def _fill_standard_streams() -> None:
    """Open /dev/null for each of 0, 1 and 2 that is closed: a file of ours would become the container's stream."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)  # open(2) gives the lowest: already this one


def _guarded(words: list[str]) -> int:
    """Run the command and tell of whatever went wrong."""
    logs.current = logs.Log()
    invocation: Invocation | None = None
    try:
        given, rest = arguments.parse_global(words)
        logs.current = logs.Log(given["log"] or "", given["log-format"], debug=given["debug"])
        logs.current.open()
        invocation = arguments.parse_command(given, rest)
        return dispatch(invocation)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141  # as a program that SIGPIPE ends
    except Exception as error:  # noqa: BLE001 -- users never see a traceback that they didn't ask for
        return _failed(error, invocation)


def dispatch(invocation: Invocation) -> int:
    """Run a command; its module is imported only now."""
    name = _RENAMED.get(invocation.command, invocation.command)
    module = __import__(f"stockade.sandbox.runtime.commands.{name}", fromlist=("run",))
    code: int = module.run(invocation)
    return code


def _failed(error: Exception, invocation: Invocation | None) -> int:
    if logs.current.debug:
        import traceback

        traceback.print_exception(error)
    told = _told(error)
    if isinstance(told, UsageError) and not told.hint:
        command = f" {invocation.command}" if invocation else ""
        told.hint = f"see '{arguments.PROGRAM}{command} --help'"
    logs.fail(told)
    if invocation is None or invocation.command not in _FOREGROUND:
        return 1
    if told.exit_code in {126, 127} and not invocation.options.get("detach"):
        return told.exit_code
    return 255 if invocation.command == "exec" else 1


def _told(error: Exception) -> StockadeError:
    """Give the error as one line with a remedy."""
    if isinstance(error, StockadeError):
        # Podman and dockerd make 127 of these words, wherever they stand, and of no exit code. ("Permission denied" is
        # their 126: the kernel's own word, so it is there where it is true.)
        if error.exit_code == 127 and "no such file or directory" not in error.message.lower():
            error.message += ": no such file or directory"
        return error
    if isinstance(error, OSError):
        from stockade.sandbox.remedies import EXHAUSTED

        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return StockadeError(f"{name}{error.strerror or error}", hint=EXHAUSTED.get(error.errno or 0, ""))
    return StockadeError(
        f"internal error: {type(error).__name__}: {error}", hint="please report it with what --debug prints"
    )
