"""How an attack path is declared: a decorated function, like a rule; and the words in which evidence is told.

The parameters say which facts it needs. It answers with the facts in the order in which an attacker uses them and the
one cheapest change that breaks the chain, or with None.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from stockade.audit import gates
from stockade.audit.facts import (
    CapabilitySets,
    Identity,
    SeccompFilter,
    SeccompState,
    UserNamespace,
    Where,
)
from stockade.audit.report import Severity
from stockade.audit.rule import DoesNotApply, Need, is_declared, needs_of, said, seen
from stockade.sandbox.linux import capabilities as caps

REMAP = "map the container's ids to a subordinate range (--userns auto)"


@dataclass(frozen=True, slots=True)
class Way:
    """One way out: the facts in order, the place of the decisive one, and the change that takes `breaks` away."""

    evidence: tuple[str, ...]
    where: Where
    fix: str
    breaks: str
    severity: Severity | None = None


Judged = Way | DoesNotApply | None


@dataclass(frozen=True, slots=True)
class AttackPath:
    """A way out. `title` is the docstring's first line; `text` its rest, for the documentation.

    `declared`: it is one of files only, where another of the same id is measured on what runs.
    """

    id: str
    severity: Severity
    title: str
    text: str
    effect: str
    proof: str
    rests_on: tuple[str, ...]
    declared: bool
    needs: tuple[Need, ...]
    function: Callable[..., Judged] = field(repr=False)


def attack_path(
    id: str,
    *rests_on: str,
    effect: str,
    proof: str,
    severity: Severity = Severity.CRITICAL,
    declared: bool = False,
) -> Callable[[Callable[..., Judged]], AttackPath]:
    """Declare a path with the rules that it rests on, what the attacker gets, and how it is shown without harm."""

    def declare(function: Callable[..., Judged]) -> AttackPath:
        title, _, text = (inspect.getdoc(function) or "").partition("\n\n")
        return AttackPath(
            id=id,
            severity=severity,
            title=title.rstrip("."),
            text=" ".join(text.split()),
            effect=effect,
            proof=proof,
            rests_on=rests_on,
            declared=declared,
            needs=needs_of(function),
            function=function,
        )

    return declare


def lets(state: SeccompState | None, filter_: SeccompFilter | None, *calls: str) -> bool | None:
    """Say whether the filter lets one of some calls through. None is not known."""
    if state and state.mode == "disabled":
        return True
    if filter_ is None and state and state.profile == "default":
        return True  # the engines' profiles open what a capability is for to whoever holds it (moby's default.json)
    return None if filter_ is None else any(call in filter_.allowed | filter_.conditional for call in calls)


def filter_line(state: SeccompState | None, filter_: SeccompFilter | None, call: str) -> str:
    """Give the line of evidence for a call that goes through, or an empty text."""
    if state and state.mode == "disabled":
        return seen(state, f"no system call filter denies {call}")
    if filter_ is None and state and state.profile == "default":
        return seen(state, f"the engine's filter lets {call} through with that capability")
    return seen(filter_, f"the filter lets {call} through") if filter_ else ""


def identity_line(identity: Identity | None) -> str:
    """Give the line of evidence for who the process is, or an empty text where that isn't known."""
    if identity is not None and identity.host_uids is None and is_declared(identity):
        return seen(identity, f"user {identity.user or identity.uids}") if identity.uids or identity.user else ""
    if identity is None or identity.host_uids is None:
        return ""
    return seen(identity, f"host uids {' '.join(str(uid) for uid in identity.host_uids)}")


def chain(*lines: str) -> tuple[str, ...]:
    """Give the lines of evidence without the empty ones."""
    return tuple([line for line in lines if line])


def holds(sets: CapabilitySets, userns: UserNamespace | None, name: str) -> str:
    """Give the line of evidence if a capability counts against the host, else an empty text."""
    mask = gates.counting(sets, userns) & caps.mask([name])
    return said(sets, f"CAP_{name} counts against the host", f"the container gets CAP_{name}") if mask else ""
