"""What a Dockerfile declares: stages and which is shipped, users, variables, ports, and steps with their places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade.audit import facts
from stockade.audit.documents.kinds import NotOne
from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import BuildStep, HealthCheck, Identity, Image, Port, Unset, Variable, Where
from stockade.audit.static.dockerfile import targets
from stockade.audit.static.dockerfile_words import shell_words, substitute

if TYPE_CHECKING:
    from stockade.audit.facts import Target


def read(content: str, target: str | None = None) -> dict[str, Target]:
    found = targets(Source("Dockerfile", content.encode()), target)
    return {each.id.removeprefix("Dockerfile:"): each for each in found}


def steps(target: Target, instruction: str) -> list[tuple[str, ...]]:
    return [step.arguments for step in target.all(BuildStep) if step.instruction == instruction]


def uid(target: Target) -> int | None:
    identity = target.one(Identity)
    return identity.uids[0] if identity and identity.uids else None


def unset(target: Target) -> dict[str, int]:
    return {fact.subject: fact.where.line for fact in target.all(Unset)}


def test_the_last_stage_is_shipped_and_what_it_is_built_on() -> None:
    found = read("FROM a AS base\nRUN x\nFROM b AS Tool\nUSER root\nRUN y\nFROM base\nUSER 7\nEXPOSE 80\n")

    assert list(found) == ["base", "tool", "2"]
    assert [target.mode for target in found.values()] == ["", "", "shipped"]
    shipped = {name: {step.shipped for step in target.all(BuildStep)} for name, target in found.items()}
    assert shipped == {"base": {True}, "tool": {False}, "2": {True}}
    assert [uid(target) for target in found.values()] == [None, None, 7]
    assert found["tool"].gap(Identity) == facts.Gap(Identity, "the stage is not shipped", applicable=False)


def test_a_named_stage_can_be_the_one_that_is_shipped() -> None:
    found = read("FROM a AS one\nUSER 1\nFROM b\nUSER 2\n", target="ONE")

    assert (uid(found["one"]), uid(found["1"])) == (1, None)
    with pytest.raises(Broken, match="no stage 'three'"):
        read("FROM a\n", target="three")


@pytest.mark.parametrize(
    ("content", "expected", "line"),
    [
        ("FROM a\nUSER 7\nUSER root\n", 0, 3),
        ("FROM a\nUSER 1000:50\n", 1000, 2),
        ("FROM a\nARG U=5\nUSER $U\n", 5, 3),
        ('FROM a\nUSER "${U:-9}"\n', 9, 2),
        ("FROM scratch\nCOPY x /\n", 0, 1),
        ("FROM a AS x\nUSER 3\nFROM x\nRUN y\n", 3, 2),
    ],
)
def test_the_last_user_counts_also_that_of_the_stage_below(content: str, expected: int, line: int) -> None:
    target = list(read(content).values())[-1]

    identity = target.one(Identity)
    assert identity is not None
    assert (uid(target), identity.where.line) == (expected, line)


def test_a_user_that_is_not_set_is_told_at_the_from_of_the_stage() -> None:
    assert unset(read("FROM a\n\nFROM b\n")["1"])["user"] == 3


@pytest.mark.parametrize(
    "content",
    ["FROM gcr.io/distroless/static:nonroot\n", "FROM nginxinc/nginx-unprivileged:1\n", "FROM a\nARG U\nUSER $U\n"],
)
def test_a_user_that_someone_else_decides_is_unknown(content: str) -> None:
    (target,) = read(content).values()

    gap = target.gap(Identity)
    assert gap is not None
    assert gap.applicable
    assert "user" not in unset(target)


def test_a_healthcheck_is_inherited_and_none_takes_it_away() -> None:
    inherited = read("FROM a AS x\nHEALTHCHECK CMD y\nFROM x\n")["1"].one(HealthCheck)
    taken = read("FROM a\nHEALTHCHECK CMD y\nHEALTHCHECK NONE\n")["0"].one(HealthCheck)

    assert inherited == HealthCheck(where=Where("Dockerfile", 2, 1), present=True)
    assert taken == HealthCheck(where=Where("Dockerfile", 3, 1), present=False)
    assert unset(read("FROM a\n")["0"])["healthcheck"] == 1


@pytest.mark.parametrize(
    ("content", "reference", "tag", "local"),
    [
        ("ARG V=1.2\nFROM alpine:${V}\n", "alpine:1.2", "1.2", False),
        ("ARG V\nFROM alpine:${V:-3}\n", "alpine:3", "3", False),
        ("ARG V\nFROM alpine:$V\n", "alpine:$V", None, True),
        ("FROM scratch\n", "scratch", None, True),
        ("FROM --platform=$BUILDPLATFORM r.io:5000/a AS x\n", "r.io:5000/a", None, False),
        ('FROM "alpine:3"\n', "alpine:3", "3", False),
        ("ARG IMG=a@sha256:11\nFROM $IMG\n", "a@sha256:11", None, False),
    ],
)
def test_an_image_is_known_with_the_defaults_of_arguments(
    content: str, reference: str, tag: str | None, *, local: bool
) -> None:
    (target,) = read(content).values()

    image = target.one(Image)
    assert image is not None
    assert (image.reference, image.tag, image.local) == (reference, tag, local)


def test_a_stage_that_is_built_on_another_pulls_no_image() -> None:
    image = read("FROM a AS Base\nFROM BASE\n")["1"].one(Image)

    assert image is not None
    assert image.local


def test_variables_have_places_and_their_values_are_not_kept() -> None:
    (target,) = read('FROM a\nENV A=1 \\\n    DB_PASSWORD="hun ter2" B=$A\nENV OLD some words\nARG T=x U\n').values()

    found = {fact.name: (fact.where.line, fact.where.column, fact.literal) for fact in target.all(Variable)}
    assert found == {
        "A": (2, 5, True),
        "DB_PASSWORD": (3, 5, True),
        "B": (3, 28, False),
        "OLD": (4, 5, True),
        "T": (5, 5, True),
        "U": (5, 9, False),
    }
    assert {fact.name for fact in target.all(Variable) if fact.secret} == {"DB_PASSWORD"}
    assert not any("hun ter2" in repr(fact) for fact in target.all(Variable))


def test_ports_are_read_with_ranges_protocols_and_variables() -> None:
    (target,) = read("FROM a\nARG P=22\nEXPOSE $P 80-82/udp 9/TCP x\n").values()

    assert [(port.container_port, port.count, port.protocol) for port in target.all(Port)] == [
        (22, 1, "tcp"), (80, 3, "udp"), (9, 1, "tcp"),
    ]  # fmt: skip


def test_lines_are_joined_without_the_comments_between_them() -> None:
    (target,) = read(
        "FROM a\nRUN apt-get update && \\\n  # why\n\n  apt-get install -y x  \\  \n    y\nRUN z\n"
    ).values()

    words = ("apt-get", "update", "&&", "apt-get", "install", "-y", "x", "y")
    assert steps(target, "RUN") == [words, ("z",)]
    assert [step.where.line for step in target.all(BuildStep)] == [1, 2, 7]


def test_another_character_can_escape() -> None:
    (target,) = read("# escape=`\nFROM a\nRUN dir C:\\ `\n  x\n").values()

    assert len(steps(target, "RUN")) == 1
    assert steps(target, "RUN")[0][-1] == "x"


def test_heredocs_are_bodies_and_not_instructions() -> None:
    content = (
        "FROM a\nRUN <<EOF\nset -e\nsudo id\nEOF\nCOPY <<'A' <<-B /etc/\nUSER root\nA\nFROM evil\n\tB\n"
        "RUN python3 <<E\nimport os; sudo\nE\nRUN bash <<E\nsudo x\nE\n"
    )
    (target,) = read(content).values()

    assert steps(target, "RUN") == [
        ("set", "-e", ";", "sudo", "id", ";"),
        ("python3", "<<", "E"),
        ("bash", "<<", "E", ";", "sudo", "x", ";"),
    ]
    assert [step.where.line for step in target.all(BuildStep)] == [1, 2, 6, 11, 14]


def test_flags_and_forms_of_instructions_are_told_apart() -> None:
    content = (
        'FROM a\nRUN --mount=type=secret,id=x --network=host id\nCMD ["a b", "c"]\nENTRYPOINT a b\nRUN ["x", \'y\']\n'
    )
    (target,) = read(content).values()

    found = {step.instruction: step for step in target.all(BuildStep) if step.where.line < 5}
    assert found["RUN"].flags == ("mount=type=secret,id=x", "network=host")
    assert (found["CMD"].arguments, found["CMD"].shell) == (("a b", "c"), False)
    assert (found["ENTRYPOINT"].arguments, found["ENTRYPOINT"].shell) == (("a", "b"), True)
    assert target.all(BuildStep)[-1].shell


def test_what_onbuild_holds_is_a_step_of_the_images_built_on_this_one() -> None:
    (target,) = read("FROM a\nONBUILD RUN sudo x\nONBUILD USER root\nUSER 5\n").values()

    assert [(step.instruction, step.flags) for step in target.all(BuildStep)][1:3] == [
        ("RUN", ("onbuild",)),
        ("USER", ("onbuild",)),
    ]
    assert uid(target) == 5


@pytest.mark.parametrize(
    ("content", "why", "line"),
    [
        ("FROM a\nNOPE x\n", "no instruction of a Dockerfile: 'NOPE'", 2),
        ("RUN x\nFROM a\n", "RUN stands before the first FROM", 1),
        ("# nothing\n", "there is no FROM", 0),
        ("FROM a b\n", "FROM takes an image", 1),
        ("FROM a\nRUN <<EOF\nx\n", "the heredoc EOF has no end", 2),
        ("# escape=x\nFROM a\n", "only", 1),
        ("FROM a\nONBUILD ONBUILD RUN x\n", "ONBUILD can't hold", 2),
        ("FROM a\n" + "ONBUILD " * 50_000 + "RUN x\n", "ONBUILD can't hold", 2),
        ("FROM a\nRUN \\\n" + "x \\\n" * 600_000, "an instruction of more than", 524289),
        ("FROM a\0\n", "control character 0x00", 1),
    ],
)
def test_what_can_not_be_built_is_refused_where_it_is(content: str, why: str, line: int) -> None:
    with pytest.raises(Broken, match=why) as caught:
        read(content)

    assert caught.value.where.line == line


def test_a_template_of_a_dockerfile_is_none() -> None:
    with pytest.raises(NotOne):
        read("FROM a\n{% if x %}\nRUN y\n{% endif %}\n")


@pytest.mark.parametrize(
    "content",
    [
        "FROM a\nENV X=" + "${a:-" * 20_000 + "\n",
        "FROM a\nENV X=" + "'\"" * 20_000 + "\n",
        "FROM a\nRUN " + "$(" * 30_000 + "\n",
        "FROM a\nRUN " + '"' * 30_001 + "\n",
        "FROM a\n" + "USER \\\\\\\n" * 100 + "\n",
        "FROM a\nENV " + "a=b " * 5000 + "\n",
    ],
)
def test_what_is_built_to_hurt_is_read_in_time(content: str) -> None:
    assert len(read(content)) == 1


VALUES = {"A": "1", "E": "", "N": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "1"),
        ("${A}b$E.", "1b."),
        ("${Z:-x${A}}", "x1"),
        ("${E:-x}", "x"),
        ("${E-x}", ""),
        ("${A:+y}", "y"),
        ("${E:+y}", ""),
        ("${N:-d}", "d"),
        ("'$A'", "$A"),
        ('"$A \\$A"', "1 $A"),
        ("\\$A", "$A"),
        ("$UNKNOWN", ""),
        ("a\\ b", "a b"),
    ],
)
def test_variables_are_replaced_as_the_builder_does(text: str, value: str) -> None:
    assert substitute(text, VALUES) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a&&b||c;d", ["a", "&&", "b", "||", "c", ";", "d"]),
        ("curl -s x|sh", ["curl", "-s", "x", "|", "sh"]),
        ("echo 'a | b' \"c;$(d | e)\" f\\ g", ["echo", "a | b", "c;$(d | e)", "f g"]),
        ("a # b\nc", ["a", ";", "c"]),
        ("a >b 2>&1", ["a", ">", "b", "2", ">&", "1"]),
        ("(a) & b", ["(", "a", ")", "&", "b"]),
        ("a `b | c` ${d}", ["a", "`b | c`", "${d}"]),
        ("a \\\nb", ["a", "b"]),
    ],
)
def test_a_shell_command_is_split_as_a_shell_does(text: str, words: list[str]) -> None:
    assert [word for word, _ in shell_words(text)] == words
