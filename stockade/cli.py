"""The command `stockade`: the short way of `run`, the way to click for everything else, and how errors are told.

click costs more than a whole launch, so a plain `run` never imports it.
"""

from __future__ import annotations

import gc
import os
import sys

from stockade.errors import StockadeError, UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: set by the shells' completion functions; commands.py, which is too slow to import here, has it too
COMPLETE = "_STOCKADE_COMPLETE"

#: exit code for a command line that can't be understood: 125 as docker-run(1) where any other may be the program's own
USAGE = {"run": 125}
#: exit code for a failure of ours: an audit's 1 is a verdict, so what failed to audit says 4
FAILURE = {"audit": 4}


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and give the exit code; the entry point of the command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.umask(0o022)  # with 0777 a user could make a record that `gc` may not read; programs get a umask of their own
    try:
        code = _main(arguments)
        if sys.stdout is not None:  # None where descriptor 1 was closed when Python started
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141
    except Exception as error:  # noqa: BLE001 -- whatever it was, 1 would be taken for the program's or a verdict
        code = _failed(error, arguments[0] if arguments else "")
    if argv is None and arguments[:1] == ["run"]:
        _leave(code)
    return code


def _main(arguments: list[str]) -> int:
    if arguments[:1] == ["run"] and COMPLETE not in os.environ:
        from stockade.sandbox import arguments as lean

        request = lean.parse(arguments[1:])
        if request is not None:
            gc.disable()  # until the program runs: there is nothing yet that could be thrown away
            from stockade.sandbox import lifecycle

            return lifecycle.run(request)
    from stockade.commands import dispatch

    return dispatch(arguments)


def _failed(error: Exception, command: str) -> int:
    failure = FAILURE.get(command, 125)
    if isinstance(error, StockadeError):
        if isinstance(error, UsageError) and not error.hint:
            error.hint = f"see 'stockade {command} --help'"
        show(error)
        if isinstance(error, UsageError):
            return USAGE.get(command, 2)
        return failure if error.exit_code == StockadeError.exit_code else error.exit_code
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename is not None else ""
        from stockade.sandbox.remedies import EXHAUSTED

        show(StockadeError(f"{name}{error.strerror or error}", hint=EXHAUSTED.get(error.errno or 0, "")))
        return failure
    import traceback

    traceback.print_exception(error)
    show(
        StockadeError(f"internal error: {type(error).__name__}: {error}", hint="please report it with the lines above")
    )
    return failure


def _leave(code: int) -> None:
    """End the process of a run: taking the interpreter apart costs 3 ms and frees what goes with the process anyway."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            pass  # who read it has gone
    os._exit(code)


def _discard_output() -> None:
    """Point standard output to nothing: whoever read it has gone, and Python flushes again when it ends."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)
