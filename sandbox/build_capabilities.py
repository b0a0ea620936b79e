"""The five capability sets that the program has after execve, or the reason why they can't be had. Pure."""

from __future__ import annotations

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.linux import capabilities
from stockade.sandbox.linux.capabilities import Sets
from stockade.sandbox.linux.record import Record
from stockade.sandbox.modes import ALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.modes import Mode
    from stockade.sandbox.request import Request

# With this bit, locked, uid 0 has no more than its ambient set after execve, capabilities(7) "securebits".
NOROOT = capabilities.SECBIT_NOROOT | capabilities.SECBIT_NOROOT_LOCKED

_SOURCE = "see capabilities(7), Transformation of capabilities during execve()"


class Privilege(Record):
    """The five sets after execve as masks, and the securebits that make them so."""

    sets: Sets
    securebits: int = 0


def decide(request: Request, mode: Mode, held: int, uid: int, *, no_new_privileges: bool) -> Privilege:
    """Give the sets for the program running as `uid`.

    `held` is the mask of what can be given: the caller's own set, or all where there is a new user namespace. Raises
    UsageError for names that contradict each other and StockadeError for sets that no execve leads to.
    """
    named = _named(request, held)
    if named:
        if request.cap_add or request.cap_drop:
            raise UsageError(
                "--cap-add and --cap-drop change the mode's sets, and one of the five sets was given by name",
                hint="use either --cap-add and --cap-drop, or --cap-bounding and its four companions",
            )
        sets = _completed(named, uid)
    else:
        sets = _of_mode(request, mode, held, uid)
    return Privilege(sets, securebits(sets, uid, no_new_privileges=no_new_privileges))


def securebits(sets: Sets, uid: int, *, no_new_privileges: bool) -> int:
    """Give the securebits under which the sets survive execve as `uid`. Raises StockadeError where none do."""
    bounding, effective, inheritable = sets.bounding, sets.effective, sets.inheritable
    permitted, ambient = sets.permitted, sets.ambient
    if ambient & ~(permitted & inheritable):
        raise _unreachable(
            f"{_text(ambient & ~(permitted & inheritable))} can't be ambient without being permitted and inheritable",
            "give the same names to --cap-permitted and --cap-inheritable",
        )
    if inheritable & ~bounding:
        raise _unreachable(
            f"{_text(inheritable & ~bounding)} can't be inheritable outside the bounding set: capset(2) refuses it",
            "give --cap-bounding the same names too",
        )
    if effective != permitted:
        raise _unreachable(
            f"execve makes the effective set equal to the permitted one (differs by {_text(effective ^ permitted)})",
            "give --cap-effective and --cap-permitted the same names; the program itself may lower its effective set",
        )
    if permitted == ambient and (uid or not bounding):
        return 0
    if uid:
        raise _unreachable(
            f"a user other than 0 keeps only its ambient set ({_text(ambient)}) across execve, "
            f"not {_text(permitted ^ ambient)}",
            "give the same names to --cap-ambient",
        )
    # inheritable | bounding, of which the bounding set is the larger; no_new_privs cuts it down to what was permitted
    if permitted == bounding or (no_new_privileges and not permitted & ~bounding):
        return 0
    if permitted == ambient:
        return NOROOT
    raise _unreachable(
        f"uid 0 has all of its bounding set after execve ({_text(bounding)}), not {_text(permitted)}",
        "give --cap-bounding the same names, set no-new-privileges, or name the set in --cap-ambient too",
    )


def _named(request: Request, held: int) -> dict[str, int]:
    given = {
        "bounding": request.cap_bounding,
        "effective": request.cap_effective,
        "permitted": request.cap_permitted,
        "inheritable": request.cap_inheritable,
        "ambient": request.cap_ambient,
    }
    return {kind: _mask(names, held, f"--cap-{kind}") for kind, names in given.items() if names is not None}


def _completed(named: dict[str, int], uid: int) -> Sets:
    """Fill in the sets that were not named: what nobody named is not given, beyond what the named ones imply."""
    permitted = named.get("permitted", named.get("effective"))
    ambient = named.get("ambient")
    if ambient is None:
        ambient = permitted or 0 if uid and "inheritable" not in named else 0
    inheritable = named.get("inheritable", ambient)
    bounding = named.get("bounding", inheritable | ambient | (permitted or 0))
    if permitted is None:
        permitted = ambient if uid else bounding
    return Sets(bounding, named.get("effective", permitted), inheritable, permitted, ambient)


def _of_mode(request: Request, mode: Mode, held: int, uid: int) -> Sets:
    added = _mask(request.cap_add, held, "--cap-add")
    dropped = capabilities.mask([name for name in request.cap_drop if name != ALL])
    both = capabilities.mask(set(request.cap_add) & set(request.cap_drop) - {ALL})
    if both:
        raise UsageError(f"{_text(both)} is both added and dropped", hint="name it in --cap-add or in --cap-drop")

    def changed(names: tuple[str, ...], kind: str, more: int) -> int:
        kept = 0 if ALL in request.cap_drop else _mask(names, held, f"mode {mode.name}, {kind}")
        return (kept | more) & ~dropped

    bounding = changed(mode.bounding, "bounding", added)
    # For a user other than 0 an added capability would only be bounding and so do nothing: it was asked for, so it is
    # made ambient, which survives execve.
    ambient = changed(mode.ambient, "ambient", added if uid else 0)
    inheritable = changed(mode.inheritable, "inheritable", 0) | ambient
    if uid:
        return Sets(bounding, ambient, inheritable, ambient, ambient)
    permitted = changed(mode.permitted, "permitted", added)
    return Sets(bounding, changed(mode.effective, "effective", added), inheritable, permitted, ambient)


def _mask(names: tuple[str, ...], held: int, what: str) -> int:
    """Give the mask of names; ALL is all that is held, a single name must be."""
    try:
        wanted = capabilities.mask([name for name in names if name != ALL])
    except ValueError as error:
        raise UsageError(f"{what}: {error}", hint="capabilities(7) lists them") from None
    missing = wanted & ~held
    if missing:
        raise StockadeError(
            f"{what}: the caller does not hold {_text(missing)}, so it can't give it to a container",
            hint="leave it out, ask for ALL to get what there is, or start Stockade with that capability",
        )
    return wanted | (held if ALL in names else 0)


def _text(mask: int) -> str:
    names = capabilities.names(mask)
    return f"{len(names)} capabilities" if len(names) > 6 else ", ".join(names) or "nothing"


def _unreachable(why: str, remedy: str) -> StockadeError:
    return StockadeError(f"capability sets: {why}", hint=f"{remedy}; {_SOURCE}")
