"""Collects what a Dockerfile declares: a target for each stage, of which the last one is the image that is shipped.

What the base image's own configuration says isn't known from the file. Values of ARG are their defaults: another one
may be given when the image is built.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from stockade.audit import facts
from stockade.audit.documents.kinds import NotOne
from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Fact, Gap, Target, Where
from stockade.audit.static import building
from stockade.audit.static.dockerfile_parse import File, Instruction, Word, flag, parse, words
from stockade.audit.static.dockerfile_words import Unresolved, pairs, shell_words, substitute

_UNSHIPPED = tuple(
    [
        Gap(kind, "the stage is not shipped", applicable=False)
        for kind in (facts.HealthCheck, facts.Identity, facts.Port, facts.Unset)
    ]
)
_COMPLETE = frozenset({facts.BuildStep, facts.Unset, facts.Port, facts.Variable})
#: names under which images are published that set a user of their own: distroless, Chainguard, nginx-unprivileged ...
_OWN_USER = re.compile(r"non-?root|rootless|unprivileged|^cgr\.dev/chainguard/", re.IGNORECASE)
_WINDOWS = re.compile(
    r"(?:^|/)(?:windows|nanoserver|servercore)(?:$|[/:@])|-(?:nanoserver|windowsservercore)", re.IGNORECASE
)
_TEMPLATE = re.compile(rb"^[ \t]*(?:\{%|\{\{|<%)", re.MULTILINE)
_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_PLATFORM = (
    "TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT", "BUILDPLATFORM", "BUILDOS", "BUILDARCH",
    "BUILDVARIANT", "TARGETSTAGE",
)  # fmt: skip
_SUBSTITUTED = frozenset({"ADD", "COPY", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"})
_EXPOSED = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(\w+))?$")


@dataclass(slots=True)
class _Stage:
    """A stage while the file is read. `values` are ENV and ARG as they stand; None is an ARG without a default."""

    name: str
    where: Where
    reference: str
    parent: "_Stage | None"
    platform: str = ""
    values: dict[str, str | None] = field(default_factory=dict)
    found: list[Fact] = field(default_factory=list)
    user: tuple[str | None, Where] | None = None
    health: facts.HealthCheck | None = None

    def ancestry(self) -> "Iterator[_Stage]":
        """The stage and those that it is built on, in this order."""
        stage: _Stage | None = self
        while stage is not None:
            yield stage
            stage = stage.parent


def targets(source: Source, target: str | None = None) -> Iterator[Target]:
    """Give a target for each stage. `target` is the stage to ship as `docker build --target` names it, or the last."""
    try:
        file = parse(source.data, source.path)
        stages, before = _stages(file, source.path)
    except Broken:
        if _TEMPLATE.search(source.data):
            raise NotOne from None  # a template of a Dockerfile, which nobody builds as it is
        raise
    shipped = _chosen(stages, target, source.path)
    kept = {id(stage) for stage in shipped.ancestry()}
    for number, stage in enumerate(stages):
        extra = before if number == 0 else ()
        yield _target(source.path, stage, ships=stage is shipped, kept=id(stage) in kept, before=extra)


def _chosen(stages: list[_Stage], target: str | None, path: str) -> _Stage:
    if target is None:
        return stages[-1]
    found = [stage for number, stage in enumerate(stages) if target.lower() in {stage.name, str(number)}]
    if not found:
        raise Broken(Where(path), f"there is no stage {target!r}")
    return found[-1]


def _target(path: str, stage: _Stage, *, ships: bool, kept: bool, before: tuple[Fact, ...]) -> Target:
    name = os.path.basename(path)
    found = [
        replace(each, shipped=False) if isinstance(each, facts.BuildStep) and not kept else each
        for each in (*before, *stage.found)
        if ships or not isinstance(each, facts.Port)
    ]
    gaps: tuple[Gap, ...] = _UNSHIPPED
    if ships:
        own, gaps = _user(stage)
        found += [*own, *_health(stage)]
    return Target(
        id=f"{path}:{stage.name}",
        name=f"{name} {stage.name}",
        kind="dockerfile",
        facts=tuple(found),
        gaps=gaps,
        complete=_COMPLETE if ships else _COMPLETE - {facts.Unset, facts.Port},
        command="",
        mode="shipped" if ships else "",
    )


def _user(stage: _Stage) -> tuple[list[Fact], tuple[Gap, ...]]:
    """Say who the image runs as: by the last USER of the stage or those below it, or else by what the base is."""
    for each in stage.ancestry():
        if each.user is not None:
            user, where = each.user
            if user is None:
                return [], (Gap(facts.Identity, "the user is an argument of the build without a default", where),)
            return list(building.identity(where, user)), ()
    base = list(stage.ancestry())[-1]
    if base.reference == "scratch":
        return list(building.identity(base.where, 0)), ()
    if _WINDOWS.search(base.reference) or base.platform.startswith("windows"):
        return [], (Gap(facts.Identity, "the image is one of Windows", base.where, applicable=False),)
    if _OWN_USER.search(base.reference):
        return [], (Gap(facts.Identity, f"the base image {base.reference} sets the user", base.where),)
    reason = "no USER is set, so the base image decides"
    return [building.unset(stage.where, "user")], (Gap(facts.Identity, reason, stage.where),)


def _health(stage: _Stage) -> Iterator[Fact]:
    for each in stage.ancestry():
        if each.health is not None:
            yield each.health
            return
    yield building.unset(stage.where, "healthcheck")


def _stages(file: File, path: str) -> tuple[list[_Stage], tuple[Fact, ...]]:
    """Read the instructions in order. The second value is what stands before the first FROM: global arguments."""
    stages: list[_Stage] = []
    arguments: dict[str, str | None] = dict.fromkeys(_PLATFORM)
    before: list[Fact] = []
    for instruction in file.instructions:
        if instruction.name == "FROM":
            stages.append(_from(instruction, stages, arguments, file.escape))
            stages[-1].found.append(_step(instruction, stages[-1], file.escape))
        elif stages:
            _take(instruction, stages[-1], arguments, file.escape)
        elif instruction.name == "ARG":
            before += _argument(instruction, arguments, arguments, file.escape)
            before.append(_step(instruction, None, file.escape))
        else:
            raise Broken(instruction.where, f"{instruction.name} stands before the first FROM")
    if not stages:
        raise Broken(Where(path), "there is no FROM in this Dockerfile")
    return stages, tuple(before)


def _from(instruction: Instruction, stages: list[_Stage], arguments: Mapping[str, str | None], escape: str) -> _Stage:
    parts = [word.text for word in words(instruction.rest, instruction.start, escape)]
    if len(parts) not in {1, 3} or (len(parts) == 3 and parts[1].upper() != "AS"):
        raise Broken(instruction.where, "FROM takes an image, or an image, AS and a name")
    name = parts[2].lower() if len(parts) == 3 else str(len(stages))
    try:
        reference = substitute(parts[0], arguments, escape)
    except Unresolved:
        reference = parts[0]
    platform = next((flag(each.text)[1] for each in instruction.flags if flag(each.text)[0] == "platform"), "")
    parent = next((stage for stage in reversed(stages) if stage.name == reference.lower()), None)
    if parent is not None and reference.isdigit():
        parent = None  # only COPY --from counts stages; FROM looks for names
    stage = _Stage(name, instruction.where, reference, parent, platform)
    if parent is not None:
        stage.values = dict(parent.values)
    local = parent is not None or reference in {"scratch", ""} or "$" in reference
    stage.found.append(building.image(instruction.where, reference or parts[0], local=local))
    return stage


def _take(instruction: Instruction, stage: _Stage, arguments: Mapping[str, str | None], escape: str) -> None:
    """Add one instruction to its stage."""
    name = instruction.name
    if name == "ARG":
        stage.found += _argument(instruction, stage.values, arguments, escape)
    elif name == "ENV":
        stage.found += _environment(instruction, stage, escape)
    elif name == "EXPOSE":
        stage.found += _ports(instruction, stage, escape)
    elif name == "USER":
        stage.user = (_resolved(instruction.text.strip(), stage.values, escape), instruction.where)
    elif name == "HEALTHCHECK":
        none = instruction.text.strip().upper() == "NONE"
        stage.health = facts.HealthCheck(where=instruction.where, present=not none)
    stage.found.append(_step(instruction, stage, escape))


def _resolved(text: str, values: Mapping[str, str | None], escape: str) -> str | None:
    try:
        return substitute(text, values, escape)
    except Unresolved:
        return None


def _pairs(instruction: Instruction, escape: str) -> Iterator[tuple[str, str, Where]]:
    """Give name, value as it is written and place of each pair of ENV, ARG or LABEL."""
    found = words(instruction.rest, instruction.start, escape)
    places = {word.text: word for word in reversed(found)}
    path = instruction.where.path
    for name, value in pairs(instruction.text, lambda _: [word.text for word in found]):
        word = places.get(f"{name}={value}") or places.get(name)
        yield name, value, Where(path, word.line, word.column) if word else instruction.where


def _argument(
    instruction: Instruction, values: dict[str, str | None], outer: Mapping[str, str | None], escape: str
) -> list[Fact]:
    found: list[Fact] = []
    for word in words(instruction.rest, instruction.start, escape):
        name, equals, written = word.text.partition("=")
        where = Where(instruction.where.path, word.line, word.column)
        value = _resolved(written, values, escape) if equals else outer.get(name)
        values[name] = value
        found.append(building.variable(where, name, value if equals else None, "argument"))
    return found


def _environment(instruction: Instruction, stage: _Stage, escape: str) -> list[Fact]:
    found: list[Fact] = []
    before = dict(stage.values)  # all pairs of one ENV see what was set before it
    for name, written, where in _pairs(instruction, escape):
        value = _resolved(written, before, escape)
        stage.values[name] = value
        literal = "$" not in written
        found.append(building.variable(where, name, value if literal else None, "image" if literal else "argument"))
    return found


def _ports(instruction: Instruction, stage: _Stage, escape: str) -> Iterator[Fact]:
    for word in words(instruction.rest, instruction.start, escape):
        value = _resolved(word.text, stage.values, escape)
        for each in (value or "").split():
            match = _EXPOSED.match(each)
            if match:
                first, last = int(match[1]), int(match[2] or match[1])
                where = Where(instruction.where.path, word.line, word.column)
                count = max(last - first + 1, 1)
                yield building.port(where, first, protocol=(match[3] or "tcp").lower(), count=count)


def _step(instruction: Instruction, stage: _Stage | None, escape: str) -> facts.BuildStep:
    inner = instruction.inner or instruction
    values = stage.values if stage is not None else {}
    flags = ["=".join(flag(each.text)) if "=" in each.text else flag(each.text)[0] for each in inner.flags]
    if instruction.inner is not None:
        flags.append("onbuild")
    return facts.BuildStep(
        where=instruction.where,
        instruction=inner.name,
        arguments=_arguments(inner, values, escape),
        flags=tuple(flags),
        stage=stage.name if stage is not None else "",
        shell=inner.array is None and inner.name in {"RUN", "CMD", "ENTRYPOINT"},
    )


def _arguments(instruction: Instruction, values: Mapping[str, str | None], escape: str) -> tuple[str, ...]:
    if instruction.array is not None:
        return instruction.array
    if instruction.name in {"RUN", "CMD", "ENTRYPOINT"}:
        return tuple([word for word, _ in shell_words(_script(instruction, escape), escape)])
    replaced = instruction.name in _SUBSTITUTED
    found = words(instruction.rest, instruction.start, escape)
    return tuple([_word(word, values, escape) if replaced else word.text for word in found])


def _word(word: Word, values: Mapping[str, str | None], escape: str) -> str:
    value = _resolved(word.text, values, escape)
    return word.text if value is None else value


def _script(instruction: Instruction, escape: str) -> str:
    """Give the commands of RUN: what stands on its line, and the heredocs that a shell is given."""
    parts = words(instruction.rest, instruction.start, escape)
    first = parts[0].text if parts else ""
    shell = first.startswith("<<") or os.path.basename(first) in _SHELLS
    bodies = [each.content for each in instruction.heredocs if shell and _for_shell(each.content)]
    line = "" if first.startswith("<<") and len(parts) == 1 else instruction.text
    return "\n".join([line, *bodies]) if line else "\n".join(bodies)


def _for_shell(content: str) -> bool:
    line = content.split("\n", 1)[0]
    return not line.startswith("#!") or any(re.search(rf"\b{shell}\b", line) for shell in _SHELLS)
