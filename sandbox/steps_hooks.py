"""The step that runs an OCI hook in the container's namespaces: createContainer and startContainer."""

from __future__ import annotations

import errno
import os

from stockade.sandbox.steps_base import Step, encode_value, head, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.steps_base import Slot

#: in place of an errno: how the hook ended, as waitpid(2) says it; native/plan.h has the same
HOOK_STATUS = 0x10000
#: what is quoted of what a hook said
SAID_BYTES = 1024


class Hook(Step):
    """Fork and execute a hook with the state on its standard input; fail when it fails or takes too long.

    `state` is a memfd that is read from its beginning when the step is taken; `timeout` in seconds, 0 for none.
    `program` is a filter that the hook gets with `flags`, empty for none. `when` is OCI's name of the point.
    """

    why = "the configuration asks for it; what it writes is told when it fails"
    when: str
    index: int
    state: Slot
    timeout: int
    flags: int
    program: bytes
    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]

    def encode(self) -> bytes:
        """Give the fields, then the two lengths and the two lists; without `args` the path is argv[0]."""
        args = self.args or (self.path,)
        fields = (self.state, self.timeout, self.flags, self.program, self.path)
        payload = b"".join([encode_value(field) for field in fields])
        payload += word(len(args)) + word(len(self.env))
        payload += b"".join([encode_value(each) for each in (*args, *self.env)])
        return head(self.op, len(payload)) + payload

    def __str__(self) -> str:
        return f"run the {self.when} hook {self.path}"


def ended(code: int) -> str:
    """Say how a hook ended: `code` is an errno, or HOOK_STATUS and what waitpid(2) gave."""
    if not code & HOOK_STATUS:
        return "timed out and was killed" if code == errno.ETIMEDOUT else f"can't be executed: {os.strerror(code)}"
    status = code & 0xFFFF
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit status {os.WEXITSTATUS(status)}"


def failed(when: str, index: int, path: str, code: int, said: bytes) -> str:
    """Give the one line about a hook that failed, worded as runc words it."""
    words = " ".join(said[:SAID_BYTES].decode("utf-8", "replace").split())
    return f"error running {when} hook #{index}: {path}: {ended(code)}" + (f": {words}" if words else "")
