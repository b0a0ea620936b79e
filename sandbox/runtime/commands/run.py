"""`run`: create and start in one, and unless it detaches wait for the end and delete."""

from __future__ import annotations

from stockade.sandbox.runtime import creating, ending, starting, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Invocation


def run(invocation: Invocation) -> int:
    """Give the program's exit code, or 0 when it detaches."""
    detached = bool(invocation.options["detach"])
    if not detached and not invocation.options["no-subreaper"]:
        from stockade.sandbox.runtime import foreground

        foreground.become_subreaper()
    made = creating.create(invocation, detached=detached)
    try:
        if detached:
            _start(made)
            made.launcher.leave()
            return 0
        from stockade.sandbox.runtime import foreground
        from stockade.sandbox.supervise import Signals

        with Signals() as signals:  # from before the program begins: it may get one at once
            _start(made)
            code = foreground.follow(made.child, signals)
    except BaseException:
        made.launcher.close()
        ending.delete(made.container, force=True)
        raise
    made.launcher.close()
    if not invocation.options["keep"]:
        ending.delete(state.load(invocation.root, invocation.arguments[0], lock=True), force=True)
    return code


def _start(made: creating.Made) -> None:
    """Start it, and let go of the lock: others may look at it, or delete it, while it runs."""
    starting.start(made.container)
    if made.container.data.get("hooks"):
        starting.poststart(made.container)
    made.container.close()
