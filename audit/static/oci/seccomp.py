"""The section `linux.seccomp`, judged call by call as libseccomp would make a program of it.

What architectures the section doesn't name is refused by the program that libseccomp makes, so there is no way around.
"""

from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap
from stockade.audit.static.reading import Reader
from stockade.sandbox.linux import syscalls

_GOES_ON = frozenset({"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"})
#: another process is asked, and may let the call through
_ASKS = frozenset({"SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE"})
_DENIES = frozenset(
    {"SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO"}
)
_ACTIONS = _GOES_ON | _ASKS | _DENIES


def state(linux: Map, reader: Reader) -> Iterator[Fact | Gap]:
    """Give whether there is a filter and what it lets through; without the section there is none."""
    section = reader.mapping(linux, "seccomp")
    where = linux.at("seccomp")
    if section is None:
        yield facts.SeccompState(where=where, mode="disabled", filters=0)
        yield Gap(facts.SeccompFilter, "there is no filter", where, applicable=False)
        return
    default = _action(section, "defaultAction", reader)
    if default is None:
        yield Gap(facts.SeccompState, "its seccomp section has no default action that is known", section.where)
        yield Gap(facts.SeccompFilter, "its seccomp section has no default action that is known", section.where)
        return
    yield facts.SeccompState(where=where, mode="filter", filters=1)
    yield _filter(section, default, reader)


def _action(node: Map, key: str, reader: Reader) -> str | None:
    action = reader.text(node, key)
    if action is not None and action not in _ACTIONS:
        reader.refuse(node.at(key), key, "an action of libseccomp", action)
        return None
    return action


def _filter(section: Map, default: str, reader: Reader) -> Fact:
    always: dict[str, set[str]] = {}
    sometimes: dict[str, set[str]] = {}
    used = {default}
    for rule in reader.mappings(section, "syscalls"):
        action = _action(rule, "action", reader)
        if action is None:
            continue
        used.add(action)
        into = sometimes if reader.sequence(rule, "args") else always
        names = [name for name, _ in reader.texts(rule, "names")]
        for name in names:
            into.setdefault(name, set()).add(action)
    allowed, conditional = _sorted(default, always, sometimes)
    return facts.SeccompFilter(
        where=section.at("defaultAction") if default in _GOES_ON else section.where,
        allowed=allowed,
        conditional=conditional,
        notifies="SCMP_ACT_NOTIFY" in used,
    )


def _sorted(
    default: str, always: dict[str, set[str]], sometimes: dict[str, set[str]]
) -> tuple[frozenset[str], frozenset[str]]:
    """Give the calls that go through with all, and those with some arguments.

    A rule without arguments takes the place of the default; of several that contradict one another either may hold.
    """
    allowed: set[str] = set()
    conditional: set[str] = set()
    for name in syscalls.numbers("x86_64").keys() | always.keys() | sometimes.keys():
        actions = always.get(name, {default}) | sometimes.get(name, set())
        if actions <= _GOES_ON:
            allowed.add(name)
        elif actions & (_GOES_ON | _ASKS):
            conditional.add(name)
    return frozenset(allowed), frozenset(conditional)
