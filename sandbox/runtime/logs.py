"""The log of `stockade-runtime`, in the two forms that logrus gives runc's, and what goes to standard error.

Engines read these: containerd's shim takes the `msg` of the last line of level "error" from the JSON form as the reason
of a failure, Podman takes it from a log of exactly one line. So a failure is one line, and no line ends within.
"""

from __future__ import annotations

import os
import time

from stockade.sandbox.runtime.output import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.errors import StockadeError

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Log:
    """Where one call of the command tells what happened; `current` is the one in use.

    `path` is --log, or empty for standard error; `form` is "text" or "json"; `debug` lets debug lines through.
    """

    __slots__ = ("debug", "descriptor", "form", "path")

    def __init__(self, path: str = "", form: str = "text", *, debug: bool = False) -> None:
        self.path = path
        self.form = form
        self.debug = debug
        self.descriptor = -1

    def open(self) -> None:
        """Open the file of --log; raises OSError when it can't be written."""
        if self.path and self.descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
            self.descriptor = os.open(self.path, flags, 0o644)

    def close(self) -> None:
        """Close the file, if it is open."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def write(self, level: str, message: str, hint: str = "") -> None:
        """Tell of something: to the log and, if there is none or it is an error, to standard error.

        `level` is "error", "warning" or "debug". A log that is full or a closed standard error lose it. The container
        inherits standard error of `create` and `exec`: what can be said in a log stays out of a program's own lines.
        """
        if level == "debug" and not self.debug:
            return
        whole = f"{message}; {hint}" if hint else message
        if self.descriptor >= 0:
            _write(self.descriptor, line(self.form, level, whole))
            if level != "error":
                return
        if self.form == "json" and self.descriptor < 0:
            _write(2, line(self.form, level, whole))
        else:
            _write(2, _told(level, message, hint))


current = Log()


def warn(message: str, hint: str = "") -> None:
    """Tell the user of something that is not as asked, and does no harm."""
    current.write("warning", message, hint)


def debug(message: str) -> None:
    """Tell what is done, if --debug asks for it."""
    current.write("debug", message)


def fail(error: StockadeError) -> None:
    """Tell the user and the engine why the command failed."""
    current.write("error", error.message, error.hint)


def line(form: str, level: str, message: str, seconds: float | None = None) -> str:
    """Give a line of the log as logrus writes it; `seconds` since the epoch, None for now."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    if form == "json":
        return f'{{"level":"{level}","msg":{quoted(message)},"time":"{at}"}}\n'
    return f'time="{at}" level={level} msg={quoted(message)}\n'


def quoted(text: str) -> str:
    """Give `text` as a JSON string (RFC 8259); what isn't printable, and half a surrogate pair, is escaped."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8 (PEP 383); alone it would be no valid JSON string
        return "\\ufffd"
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def _told(level: str, message: str, hint: str) -> str:
    """Give the lines for people."""
    from stockade.errors import StockadeError, describe

    said = message if level == "error" else f"{level}: {message}"
    return describe(StockadeError(said, hint=hint), colour=_coloured(), program="stockade-runtime") + "\n"


def _coloured() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return os.isatty(2)


def _write(descriptor: int, text: str) -> None:
    try:
        write_all(descriptor, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass
