"""A small client of headless Chromium's DevTools protocol, over the pipe of --remote-debugging-pipe.

The browser reads commands from its descriptor 3 and answers on 4, each message JSON with a NUL at its end. No port is
opened, nothing needs installing but Debian's chromium.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from typing import Any, Self

import pytest

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip
_DEADLINE = 30


def _start(argv: list[str]) -> tuple[int, int, int]:
    """Start a browser; give its pid, which is its group too, and the descriptors to write to and to read from."""
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    # Out of the way first: one of the two may be 3 or 4 itself.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_DUP2, source, to)
        for source, to in ((null, 0), (null, 1), (null, 2), (ends[0], 3), (ends[1], 4))
    ]
    process = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True)
    for end in (theirs_in, theirs_out, null, *ends):
        os.close(end)
    return process, ours_out, ours_in


class Page:
    """One tab of a browser of its own, which goes with the `with` block."""

    def __init__(self) -> None:
        program = shutil.which("chromium")
        if program is None:
            pytest.fail("there is no chromium: run ./dev setup as root, or install chromium", pytrace=False)
        self._home = tempfile.TemporaryDirectory(prefix="stockade-chromium-", ignore_cleanup_errors=True)
        self._process, self._out, self._in = _start([program, *_FLAGS, f"--user-data-dir={self._home.name}"])
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._session = None
            self.call("Browser.close")
        except (OSError, EOFError, TimeoutError):
            os.killpg(self._process, signal.SIGKILL)
        finally:
            os.close(self._in)
            os.close(self._out)
            ending = os.pidfd_open(self._process)
            if not select.select([ending], [], [], 10)[0]:
                os.killpg(self._process, signal.SIGKILL)
            os.close(ending)
            os.waitpid(self._process, 0)
            self._home.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and give its result; RuntimeError with the browser's words when it refuses."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + _DEADLINE
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._in, 1 << 16)
            if not data:
                raise EOFError("the browser ended")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, url: str) -> None:
        """Open an address and wait until it is loaded; what was noted of an earlier page is forgotten."""
        self._events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._read())

    def run(self, expression: str) -> Any:
        """Evaluate JavaScript in the page, wait for a promise, give the value; AssertionError when it throws."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until the page has painted what its script changed."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def key(self, key: str, code: int) -> None:
        """Press and release a key, such as ("Tab", 9)."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        if key == " ":
            self.call("Input.dispatchKeyEvent", type="char", text=" ")

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)
        self.settle()

    def media(self, kind: str = "", **features: str) -> None:
        """Emulate a medium ("print") and features, such as prefers_color_scheme="dark"."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=kind, features=named)

    def size(self, width: int, height: int) -> None:
        """Set the window's size in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self) -> bytes:
        """Give what the window shows as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def paper(self) -> bytes:
        """Print the page to PDF."""
        data = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"]
        return base64.b64decode(data)

    @property
    def problems(self) -> list[str]:
        """Whatever the page wrote to the console, threw, or was refused by its policy."""
        self.call("Runtime.evaluate", expression="0")  # what comes before the answer has been read then
        noted = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [json.dumps(event["params"]) for event in self._events if event.get("method") in noted]

    @property
    def requests(self) -> list[str]:
        """The addresses that the page asked for, itself included."""
        sent = [event["params"] for event in self._events if event.get("method") == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]
