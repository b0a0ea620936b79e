"""What a process does to itself before it supervises containers, through python-prctl; prctl(2).

For the process of a caller who wants it, and for our own: adopt orphans, die with the parent, be unreadable.
"""

from __future__ import annotations

import os

from stockade.errors import StockadeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def prctl() -> Any:
    """Give the module of python-prctl. Raises StockadeError where it can't be imported."""
    try:
        import prctl as module
    except (ImportError, RuntimeError, NameError) as error:
        # NameError: release 1.8.1 dies in its own warning when it was built against headers with an unnamed capability.
        raise StockadeError(
            f"load python-prctl: {error}", hint="install python-prctl for this interpreter; its build needs libcap-dev"
        ) from None
    return module


def prepare(
    *, subreaper: bool = True, death_signal: int = 0, parent: int | None = None, dumpable: bool = True, name: str = ""
) -> None:
    """Make the calling process ready to supervise.

    `subreaper`: orphaned descendants become its children, so that it can wait for all of them; PR_SET_CHILD_SUBREAPER.
    `death_signal`: as die_with_parent() has it, with `parent`; 0 leaves it. `dumpable=False`: no core dump, and nobody
    without CAP_SYS_PTRACE may trace it or look into its memory. `name`: what ps shows, at most 15 bytes.
    Raises StockadeError when the kernel does not do as told; each is read back.
    """
    module = prctl()
    if subreaper:
        module.set_child_subreaper(1)
        confirm("become the reaper of orphans", bool(module.get_child_subreaper()), wanted=True)
    if name:
        module.set_name(name)
        confirm("set the name", module.get_name(), wanted=os.fsdecode(os.fsencode(name)[:15]))
    if not dumpable:
        undumpable()
    if death_signal:
        die_with_parent(death_signal, parent)


def die_with_parent(signal: int, parent: int | None = None) -> None:
    """Have the kernel send `signal` to this process when the thread that started it ends; PR_SET_PDEATHSIG.

    `parent` is the pid it should have; when it has gone already, the signal comes at once, as it would have come. Fork,
    and execve of a program with privilege, clear the setting. Raises StockadeError when the kernel does not do as told.
    """
    module = prctl()
    module.set_pdeathsig(signal)
    confirm("set the parent-death signal", module.get_pdeathsig(), wanted=signal)
    if parent is not None and os.getppid() != parent:
        # It died before the call: nobody else will send the signal.
        os.kill(os.getpid(), signal)


def undumpable() -> None:
    """Forbid core dumps and inspection of this process; PR_SET_DUMPABLE. Its files in /proc belong to root then."""
    module = prctl()
    module.set_dumpable(0)
    confirm("make the process undumpable", module.get_dumpable(), wanted=0)


def confirm(step: str, found: object, *, wanted: object) -> None:
    """Raise StockadeError unless what was read back is what was set."""
    if found != wanted:
        raise StockadeError(f"{step}: the kernel says {found!r}, not {wanted!r}")
