"""Takes privilege away from the calling process itself; capabilities(7), prctl(2), seccomp(2).

For a program that starts with more than it needs: a server that has bound its port, a worker that will parse what
strangers send, a test that wants to know what it can do without. Nothing that was taken away can be got back.

python-prctl does what it can; capability masks, the ambient set and filters go through sandbox.linux: python-prctl
has no ambient set, and its set_seccomp(2) means strict mode and kills the process.
"""

from __future__ import annotations

import os

from stockade.errors import StockadeError
from stockade.sandbox import harden_steps as steps
from stockade.sandbox.linux import capabilities, process
from stockade.sandbox.linux.record import Record
from stockade.sandbox.supervisor import confirm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stockade.sandbox.linux.process import Status


class Wish(Record):
    """What harden() was asked for, checked and in the kernel's terms; None is "leave it"."""

    sets: capabilities.Sets | None
    securebits: int | None
    no_new_privs: bool
    program: bytes | None
    limits: tuple[tuple[int, int], ...]
    dumpable: bool
    death_signal: int
    parent: int
    keep_descriptors: tuple[int, ...] | None


def harden(
    *,
    keep: Iterable[str] | None = (),
    ambient: bool = False,
    no_new_privs: bool = True,
    seccomp: bytes | None = None,
    limits: Mapping[str, int] | None = None,
    dumpable: bool = False,
    death_signal: int = 0,
    close_descriptors: bool = False,
    keep_descriptors: Iterable[int] = (),
) -> Status:
    """Take privilege away from the calling process, read back that it is gone, and give its state as /proc has it.

    `keep` names the capabilities that stay effective and permitted; all others leave all five sets, and the securebits
    are locked so that uid 0 means nothing. None leaves capabilities alone. With `ambient` the kept ones also outlive
    execve. The bounding set can shrink only with CAP_SETPCAP; without it, it stays, which gives nothing under
    no_new_privs and is refused without.
    `no_new_privs`: set-user-id and file capabilities give nothing any more, here and in every descendant.
    `seccomp` is a filter program (8 bytes an instruction), loaded last and into all threads.
    `limits` are resource limits by name, "nofile" and so on, soft and hard; "core" is 0 unless it is named.
    `dumpable=False`: no core dump and no tracer without CAP_SYS_PTRACE. `death_signal` comes when the parent ends.
    `close_descriptors` closes every descriptor above 2 that is not in `keep_descriptors`.

    Capabilities and no_new_privs belong to threads: a process with several threads is refused, unless they all have
    nothing to lose or the filter carries no_new_privs to them. Raises StockadeError; the process has then lost some of
    its privilege, perhaps not all, and should end.
    """
    before = process.status("thread-self")
    core = {"core": 0} | dict(limits or {})
    wish = Wish(
        sets=None if keep is None else wanted_sets(keep, ambient, before.caps, nnp=no_new_privs or before.no_new_privs),
        securebits=None if keep is None else steps.wanted_securebits(before.caps),
        no_new_privs=no_new_privs or bool(before.no_new_privs),
        program=None if seccomp is None else steps.checked_program(seccomp),
        limits=steps.checked_limits(core),
        dumpable=dumpable,
        death_signal=death_signal,
        parent=os.getppid(),
        keep_descriptors=tuple(keep_descriptors) if close_descriptors else None,
    )
    if wish.program and not wish.no_new_privs:
        raise StockadeError(
            "load the filter: it needs no_new_privs", hint="leave no_new_privs on when you give a filter"
        )
    refuse_threads(wish)
    try:
        return apply(wish, before)
    except (OSError, ValueError) as error:  # resource and prctl say ValueError for some of the kernel's refusals
        raise StockadeError(f"harden: {error}", hint="end the process: it may have kept some privilege") from error


def wanted_sets(keep: Iterable[str], ambient: bool, now: capabilities.Sets, *, nnp: bool | None) -> capabilities.Sets:  # noqa: FBT001
    """Give the five sets to end with. Raises StockadeError for what can't be kept and what can't be taken away."""
    try:
        mask = capabilities.mask(keep)
    except ValueError as error:
        raise StockadeError(f"keep capabilities: {error}") from None
    missing = mask & ~now.permitted
    if missing:
        raise StockadeError(
            f"keep capabilities: the process does not have {', '.join(capabilities.names(missing))}",
            hint="start it with them, or leave them out of keep",
        )
    bounding = now.bounding & mask if steps.may_set_bounding(now) else now.bounding
    if bounding & ~mask and not nnp:
        raise StockadeError(
            "empty the bounding set: it needs CAP_SETPCAP, which the process does not have",
            hint="with no_new_privs the bounding set gives nothing; leave it on",
        )
    carried = mask if ambient else 0
    return capabilities.Sets(bounding, mask, carried, mask, carried)


def refuse_threads(wish: Wish) -> None:
    """Raise StockadeError when another thread would keep what the calling one gives up."""
    threads = process.threads("self")
    if len(threads) == 1:
        return
    for thread in threads:
        status = process.status(f"self/task/{thread}")
        loses = wish.sets is not None and status.caps != wish.sets
        # SECCOMP_FILTER_FLAG_TSYNC takes no_new_privs along, kernel/seccomp.c: seccomp_sync_threads
        loses = loses or (wish.no_new_privs and not status.no_new_privs and wish.program is None)
        if loses or (wish.securebits is not None and wish.securebits != steps.securebits()):
            raise StockadeError(
                f"harden: the process has {len(threads)} threads, and capabilities belong to each thread",
                hint="call harden() before the first thread starts",
            )


def apply(wish: Wish, before: Status) -> Status:
    """Do it, in the order in which each step is still permitted, and give the state that was read back."""
    steps.set_limits(wish.limits)
    if wish.keep_descriptors is not None:
        steps.close_descriptors(wish.keep_descriptors)
    if wish.sets is not None:
        steps.set_capabilities(wish.sets, wish.securebits)
    if wish.no_new_privs:
        steps.set_no_new_privs()
    steps.set_process(wish.death_signal, wish.parent, dumpable=wish.dumpable)
    verify(wish)
    if wish.program is None:
        return process.status("thread-self")
    return steps.load_filter(wish.program, before)


def verify(wish: Wish) -> None:
    """Compare what /proc says of every thread with the wish, the filter apart. Raises StockadeError."""
    calling = process.status("thread-self").pid
    for thread in process.threads("self"):
        status = process.status(f"self/task/{thread}")
        if wish.sets is not None and status.caps != wish.sets:
            raise StockadeError(f"harden: thread {thread} has {status.caps}, not {wish.sets}")
        # The filter takes no_new_privs to the other threads; load_filter() looks at them.
        due = wish.program is None or thread == calling
        if wish.no_new_privs and due and not status.no_new_privs:
            raise StockadeError(f"harden: thread {thread} has no no_new_privs")
    if wish.securebits is not None:
        confirm("lock the securebits", steps.securebits(), wanted=wish.securebits)
