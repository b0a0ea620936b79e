"""The section `linux.seccomp`, judged call by call as libseccomp would make a program of it.

What architectures the section doesn't name is refused by the program that libseccomp makes, so there is no way around.
"""

from collections.abc import Iterator, Mapping, Sequence

from stockade.audit import facts
from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap, Where
from stockade.audit.static.reading import Reader
from stockade.sandbox.linux import capabilities as caps
from stockade.sandbox.linux import syscalls

_GOES_ON = frozenset({"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"})
#: another process is asked, and may let the call through
_ASKS = frozenset({"SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE"})
_DENIES = frozenset(
    {"SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO"}
)
_ACTIONS = _GOES_ON | _ASKS | _DENIES
_EPERM = 1
#: an action and the error number that it gives
_Answer = tuple[str, int]


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
    place = section.at("defaultAction") if default in _GOES_ON else section.where
    yield _filter(section, default, reader, place)


def profile(document: Map, where: Where, bounding: int) -> Fact | None:
    """Judge a profile in Docker's form, whose rules may ask for capabilities; None for one that can't be read."""
    reader = Reader()
    default = _action(document, "defaultAction", reader)
    return _filter(document, default, reader, where, bounding) if default is not None else None


def _holds(rule: Map, bounding: int) -> bool:
    """Say whether a rule counts for a container with these capabilities; what depends on machine or kernel does."""
    return all(each & bounding for each in _caps(rule, "includes")) and not any(
        each & bounding for each in _caps(rule, "excludes")
    )


def _caps(rule: Map, key: str) -> Iterator[int]:
    section = rule.map(key)
    for name in (section.seq("caps") if section is not None else None) or ():
        try:
            yield 1 << caps.number(str(name))
        except ValueError:
            yield 0


def _action(node: Map, key: str, reader: Reader) -> str | None:
    action = reader.text(node, key)
    if action is not None and action not in _ACTIONS:
        reader.refuse(node.at(key), key, "an action of libseccomp", action)
        return None
    return action


def _filter(section: Map, default: str, reader: Reader, where: Where, bounding: int = 0) -> Fact:
    # by call, in their order: what a rule answers, and whether it asks for arguments
    rules: dict[str, list[tuple[_Answer, bool]]] = {}
    other = (default, _errno(section, default, "defaultErrnoRet", reader))
    used = {default}
    for rule in reader.mappings(section, "syscalls"):
        action = _action(rule, "action", reader)
        if action is None or not _holds(rule, bounding):
            continue
        used.add(action)
        answer = (action, _errno(rule, action, "errnoRet", reader))
        narrow = bool(reader.sequence(rule, "args"))
        names = [name for name, _ in reader.texts(rule, "names")]
        for name in (*names, *((rule["name"],) if isinstance(rule.get("name"), str) else ())):
            rules.setdefault(name, []).append((answer, narrow))
    allowed, conditional = _sorted(other, rules)
    return facts.SeccompFilter(
        where=where,
        allowed=allowed,
        conditional=conditional,
        notifies="SCMP_ACT_NOTIFY" in used,
    )


def _errno(node: Map, action: str, key: str, reader: Reader) -> int:
    return (reader.number(node, key) or _EPERM) if action == "SCMP_ACT_ERRNO" else 0


def _sorted(
    default: _Answer, rules: Mapping[str, Sequence[tuple[_Answer, bool]]]
) -> tuple[frozenset[str], frozenset[str]]:
    """Give the calls that go through with all, and those with some arguments.

    As libseccomp has it: a rule that answers what the default does is none, and the first that asks for no arguments
    decides alone.
    """
    allowed: set[str] = set()
    conditional: set[str] = set()
    for name in syscalls.numbers("x86_64").keys() | rules.keys():
        counted = [(action, narrow) for (action, number), narrow in rules.get(name, ()) if (action, number) != default]
        alone = next((action for action, narrow in counted if not narrow), None)
        actions = {alone} if alone is not None else {default[0], *(action for action, _ in counted)}
        if actions <= _GOES_ON:
            allowed.add(name)
        elif actions & (_GOES_ON | _ASKS):
            conditional.add(name)
    return frozenset(allowed), frozenset(conditional)
