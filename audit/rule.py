"""How a rule is declared, once: a decorated pure generator.

    @rule(Severity.HIGH, "https://...", conditions=("MNT-SOCK",))
    def runtime_socket(socket: EngineSocket, identity: Identity | None) -> Iterator[Outcome]:
        \"\"\"A container engine's socket can be reached.

        Why it matters, in one or two paragraphs.

        Severity: what raises or lowers it.

        Fix: what to do.

        ```toml bad
        [[EngineSocket]]
        ...
        ```
        \"\"\"

The function's name is the id. The parameters' types are the facts it needs: a kind of one fact is given as it is; for
a kind of many the rule runs once for each; `tuple[Kind, ...]` gives all together; `| None` says that the rule can do
without. A missing fact that isn't optional makes the result unknown, which the engine reports.

Modules of rules don't postpone the evaluation of annotations: they are read when the rule is declared.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stockade.audit.facts import Fact, Where
from stockade.audit.report import Severity, Standards


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule found: one sentence, the place, what was read there. Empty fields are taken from the rule.

    `key` tells two findings of a rule on one target apart, in words that stay the same between audits.
    """

    title: str
    where: Where
    evidence: tuple[str, ...] = ()
    severity: Severity | None = None
    conditions: tuple[str, ...] = ()
    fix: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class DoesNotApply:
    """The rule has no meaning here, because of `reason`. Not a pass; without a reason it isn't worth a word."""

    reason: str


@dataclass(frozen=True, slots=True)
class CannotTell:
    """The facts are there and don't suffice, because of `reason`; `gap`: the collector said that some are missing."""

    reason: str
    where: Where | None = None
    gap: bool = False


def seen(fact: Fact, text: str) -> str:
    """Give a line of evidence: where a fact was read and what was read there."""
    return text if text.startswith(fact.where.path) else f"{fact.where}: {text}"


def is_declared(fact: Fact) -> bool:
    """Say whether a line of a file tells of a fact; what was measured has none, or one of a file under /proc, /sys."""
    return fact.where.line > 0 and not fact.where.path.startswith(("/proc/", "/sys/"))


def said(fact: Fact, measured: str, declared: str) -> str:
    """Give a line of evidence in the kernel's words, or in those of a file where one declares it."""
    return seen(fact, declared if is_declared(fact) else measured)


#: of many things of one kind, so many are named in a finding
SHOWN = 12


def several(facts: Sequence[Fact], lines: Iterable[str]) -> tuple[str, ...]:
    """Give the lines of evidence of many facts that make one finding; of a long list only the beginning.

    `lines` has one for each fact; of a generator only those that are shown are made.
    """
    evidence = [seen(fact, line) for fact, line in zip(facts[:SHOWN], lines, strict=False)]
    more = [f"and {len(facts) - SHOWN} more"] if len(facts) > SHOWN else []
    return (*evidence, *more)


Outcome = Found | DoesNotApply | CannotTell
Judge = Callable[..., Iterator[Outcome]]


@dataclass(frozen=True, slots=True)
class Need:
    """One parameter of a rule: which facts, in what shape, and whether the rule can do without them."""

    parameter: str
    kind: type[Fact]
    shape: Literal["one", "each", "all"]
    optional: bool


@dataclass(frozen=True, slots=True)
class Example:
    """Recorded facts, as audit/recorded.py reads them, that break the rule or don't."""

    bad: bool
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """The parts of a rule's docstring."""

    title: str
    why: str
    severity: str
    fix: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with all that is known of it. Calling it runs the generator."""

    id: str
    severity: Severity
    conditions: tuple[str, ...]
    references: tuple[str, ...]
    covers: frozenset[str]
    scope: Literal["container", "host"]
    needs: tuple[Need, ...]
    text: Text
    standards: Standards
    function: Judge = field(repr=False)

    def __call__(self, **facts: Any) -> Iterator[Outcome]:
        """Judge the facts, given by the names of the parameters."""
        return self.function(**facts)

    @property
    def subject(self) -> str:
        """The module that holds the rule, such as "mounts"."""
        return self.function.__module__.rpartition(".")[2]


def rule(
    severity: Severity,
    *references: str,
    conditions: tuple[str, ...],
    covers: Iterable[str] = (),
    scope: Literal["container", "host"] = "container",
    cis: tuple[str, ...] = (),
    attack: tuple[str, ...] = (),
    cwe: tuple[int, ...] = (),
    cve: tuple[str, ...] = (),
) -> Callable[[Judge], Rule]:
    """Declare a rule with its usual severity, addresses to read more, and its ids in the catalogue of conditions.

    `covers` are ids of rules whose findings on the same target have the same cause and are folded into this rule's
    finding. A rule of scope "host" judges the machine once and not each container. `cis`, `attack`, `cwe` and `cve` are
    what others call it (report.Standards). Raises TypeError for a faulty declaration.
    """

    def declare(function: Judge) -> Rule:
        return Rule(
            id=name_of(function),
            severity=severity,
            conditions=conditions,
            references=references,
            covers=frozenset(covers),
            scope=scope,
            needs=needs_of(function),
            text=read(inspect.getdoc(function) or ""),
            standards=Standards(cis, attack, cwe, cve),
            function=function,
        )

    return declare


def name_of(function: Callable[..., Any]) -> str:
    """Give the name of a function, which is its rule's id."""
    return str(getattr(function, "__name__", ""))


def needs_of(function: Callable[..., Any]) -> tuple[Need, ...]:
    """Read from the parameters of a function which facts it needs. Raises TypeError for types that aren't facts."""
    hints = typing.get_type_hints(function)
    needs = tuple([_need(name, hints[name]) for name in inspect.signature(function).parameters])
    if sum(need.shape == "each" for need in needs) > 1:
        raise TypeError(f"{name_of(function)}: only one parameter can stand for each fact of a kind")
    return needs


def _need(parameter: str, hint: Any) -> Need:
    optional = False
    if isinstance(hint, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
        optional, hint = True, parts[0]
    collected = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if collected else hint
    if not (isinstance(kind, type) and issubclass(kind, Fact)):
        raise TypeError(f"parameter {parameter}: {hint!r} is not a kind of fact")
    if collected and not kind.many:
        raise TypeError(f"parameter {parameter}: a target has one {kind.__name__} only")
    return Need(parameter, kind, "all" if collected else "each" if kind.many else "one", optional)


_BLOCK = re.compile(r"^```toml (bad|good)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(docstring: str) -> Text:
    """Take a docstring apart. Raises TypeError where the title, the reason, the fix or an example is missing."""
    examples = tuple([Example(kind == "bad", text) for kind, text in _BLOCK.findall(docstring)])
    paragraphs = [" ".join(part.split()) for part in _BLOCK.sub("", docstring).split("\n\n") if part.strip()]
    labelled = {"Fix": "", "Severity": ""}
    plain = []
    for paragraph in paragraphs:
        label, colon, rest = paragraph.partition(": ")
        if colon and label in labelled:
            labelled[label] = rest
        else:
            plain.append(paragraph)
    title, why = (plain[0], "\n\n".join(plain[1:])) if plain else ("", "")
    if not (title and why and labelled["Fix"]):
        raise TypeError(f"a rule's docstring has a title, a reason and a paragraph 'Fix:': {title!r}")
    return Text(title.rstrip("."), why, labelled["Severity"], labelled["Fix"], examples)
