"""How compose files are put together: variables, anchors, extends, include, overrides. Places are those that decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade.audit import facts
from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Target
from stockade.audit.static.compose import project
from stockade.audit.static.compose.interpolate import Malformed, env_file, substitute
from tests.audit.static.compose_help import everything, namespace, on_disk, only, read, wrong

if TYPE_CHECKING:
    from pathlib import Path


def target(found: dict[str, Target | Broken], name: str) -> Target:
    each = found[name]
    assert isinstance(each, Target)
    return each


class TestVariables:
    @pytest.mark.parametrize(
        ("text", "value"),
        [("$A", "1"), ("${A}", "1"), ("${B:-x}", "x"), ("${E:-x}", "x"), ("${E-x}", ""), ("${B-x}", "x"),
         ("${A:+y}", "y"), ("${B:+y}", ""), ("${E+y}", "y"), ("${A:?no}", "1"), ("$$A", "$A"), ("a$$b", "a$b"),
         ("${B:-${A}}", "1"), ("${B:-${C:-z}}!", "z!"), ("${B}", "${B}"), ("${B:?no}", "${B:?no}"), ("$B/x", "$B/x"),
         ("${HOME}/.ssh", "~/.ssh"), ("$PWD/x", "./x"), ("5$", "5$")],
    )  # fmt: skip
    def test_each_form_of_a_variable_is_put_in(self, text: str, value: str) -> None:
        assert substitute(text, {"A": "1", "E": ""}) == value

    @pytest.mark.parametrize("text", ["${", "${A", "${}", "${1}", "${A!x}", "${A:-${B}"])
    def test_what_compose_refuses_is_refused(self, text: str) -> None:
        with pytest.raises(Malformed):
            substitute(text, {})

    def test_nesting_that_is_built_to_hurt_is_refused(self) -> None:
        with pytest.raises(Malformed):
            substitute("${A:-" * 500 + "}" * 500, {})

    def test_a_malformed_variable_is_told_with_its_place_and_the_rest_is_judged(self) -> None:
        text = "services:\n  a:\n    image: ${x\n    pid: host\n"
        assert wrong(text) == ["stdin:3:5: a ${ that has no name or no end"]
        assert namespace(target({"a": everything(text, "stdin")[0]}, "a"), "pid").host is True

    def test_the_env_file_is_read_with_quotes_comments_and_references(self) -> None:
        data = b"# x\nA=1\nexport B='$A'\nC=\"${A}2\" # c\nD=x # y\nnothing\nE=\n"
        assert env_file(data) == {"A": "1", "B": "$A", "C": "12", "D": "x", "E": ""}

    def test_values_come_from_the_env_file_beside(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("MODE=host\nSECRET_TOKEN=abcdef\n")
        text = "services: {a: {image: a, pid: $MODE, environment: {SECRET_TOKEN: '${SECRET_TOKEN}'}}}"
        found = target(on_disk(tmp_path, compose_yml=text), "a")
        assert namespace(found, "pid").host is True
        variable = only(found, facts.Variable)
        assert (variable.literal, variable.source) == (False, "file")

    def test_a_default_in_the_file_is_a_literal(self) -> None:
        found = read("services: {a: {image: a, environment: ['DB_PASSWORD=${DB_PASSWORD:-hunter22}', X]}}")["a"]
        assert [(each.literal, bool(each.secret)) for each in found.all(facts.Variable)] == [
            (True, True),
            (False, False),
        ]

    def test_the_environment_of_who_audits_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MODE", "host")
        found = read("services: {a: {image: a, pid: '${MODE}'}}")["a"]
        assert found.gap(facts.Namespace) is not None


class TestAnchors:
    def test_merge_keys_and_aliases_keep_the_place_where_the_key_stands(self) -> None:
        text = """\
            x-base: &base
              privileged: true
            services:
              a:
                <<: *base
                image: a
              b:
                <<: *base
                image: b
                privileged: false
        """
        found = read(text)
        assert only(found["a"], facts.Privileged).value
        assert only(found["a"], facts.Privileged).where.line == 2
        assert not only(found["b"], facts.Privileged).value
        assert only(found["b"], facts.Privileged).where.line == 10


class TestExtends:
    def test_a_service_of_the_same_file_is_put_under_it(self) -> None:
        text = """\
            services:
              base:
                image: base
                cap_add: [SYS_ADMIN]
                environment: [A=1, B=2]
                user: root
              web:
                extends: {service: base}
                cap_add: [NET_ADMIN]
                environment: {B: "3"}
                user: "1000"
        """
        web = read(text)["web"]
        assert only(web, facts.CapabilityChange).added == ("SYS_ADMIN", "NET_ADMIN")
        assert only(web, facts.CapabilityChange).where.line == 4
        assert only(web, facts.Identity).where.line == 11
        assert {each.name: each.where.line for each in web.all(facts.Variable)} == {"A": 5, "B": 10}

    def test_a_service_of_another_file_has_its_places_there(self, tmp_path: Path) -> None:
        found = on_disk(
            tmp_path,
            compose_yml="services:\n  web:\n    extends: {file: sub/base.yml, service: b}\n    image: w\n",
            sub__base_yml="services:\n  a: {privileged: true}\n  b:\n    extends: a\n",
        )
        switch = only(target(found, "web"), facts.Privileged)
        assert switch.value
        assert (switch.where.path, switch.where.line) == (str(tmp_path / "sub/base.yml"), 2)

    def test_a_circle_is_one_clear_message(self) -> None:
        text = "services:\n  a: {image: a, extends: b, pid: host}\n  b: {image: b, extends: a}\n"
        assert wrong(text) == ["stdin:3:17: services extend each other in a circle: a → b → a"]
        kept = [each for each in everything(text, "stdin") if isinstance(each, Target)]
        assert [namespace(each, "pid").host for each in kept] == [True, True]

    def test_a_long_chain_is_refused_and_does_not_overflow(self) -> None:
        services = "".join(f"  s{number}: {{image: x, extends: s{number + 1}}}\n" for number in range(300))
        assert any("in a circle" in each for each in wrong(f"services:\n{services}  s300: {{image: x}}\n"))

    def test_a_file_that_is_not_there_or_elsewhere_is_told(self, tmp_path: Path) -> None:
        text = "services:\n  a: {image: a, pid: host, extends: {file: none.yml, service: x}}\n"
        found = on_disk(tmp_path, compose_yml=text)
        assert any("none.yml can't be read: no such file" in key for key in found)
        assert namespace(target(found, "a"), "pid").host is True
        assert "it lies elsewhere" in wrong(text)[0]

    def test_no_fifo_device_or_link_is_opened_for_a_file(self, tmp_path: Path) -> None:
        import os

        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link.yml").symlink_to("/etc/passwd")
        for name in ("pipe", "link.yml", "/dev/zero", "."):
            text = f"services: {{a: {{image: a, extends: {{file: {name}, service: x}}}}}}"
            assert any("can't be read" in key for key in on_disk(tmp_path, compose_yml=text)), name


class TestSeveralFiles:
    def test_the_override_beside_is_merged_in(self, tmp_path: Path) -> None:
        found = on_disk(
            tmp_path,
            compose_yml="services:\n  web: {image: w, ports: ['80:80'], read_only: true}\n",
            compose_override_yml="services:\n  web:\n    ports: ['81:81']\n    privileged: true\n  more: {image: m}\n",
        )
        web = target(found, "web")
        assert only(web, facts.Privileged).where.path == str(tmp_path / "compose.override.yml")
        assert [each.host_port for each in web.all(facts.Port)] == [80, 81]
        assert only(web, facts.ReadOnlyRoot).value
        assert set(found) == {"web", "more"}

    def test_reset_takes_away_and_override_replaces(self, tmp_path: Path) -> None:
        found = on_disk(
            tmp_path,
            compose_yml="services: {web: {image: w, privileged: true, ports: ['80:80'], cap_add: [SYS_ADMIN]}}",
            compose_override_yml="services:\n  web:\n    privileged: !reset null\n    cap_add: !reset []\n"
            "    ports: !override\n    - 443:443\n",
        )
        web = target(found, "web")
        assert not only(web, facts.Privileged).value
        assert only(web, facts.CapabilityChange).added == ()
        assert [each.host_port for each in web.all(facts.Port)] == [443]

    def test_a_volume_at_the_same_place_is_replaced(self, tmp_path: Path) -> None:
        found = on_disk(
            tmp_path,
            compose_yml="services: {web: {image: w, volumes: ['/:/data', '/srv:/srv']}}",
            compose_override_yml="services: {web: {volumes: ['safe:/data']}}",
        )
        mounts = {each.destination: each.host_path for each in target(found, "web").all(facts.Mount)}
        assert mounts == {"/data": None, "/srv": "/srv"}

    def test_several_files_are_merged_in_the_order_in_which_they_are_given(self) -> None:
        first = Source("stdin", b"services: {a: {image: a, privileged: true}}")
        second = Source("b.yml", b"services: {a: {privileged: false, pid: host}}")
        (found,) = project([first, second])
        assert isinstance(found, Target)
        assert not only(found, facts.Privileged).value
        assert namespace(found, "pid").where.path == "b.yml"

    def test_included_files_are_audited_under_their_own_names(self, tmp_path: Path) -> None:
        found = on_disk(
            tmp_path,
            compose_yml="include:\n- sub/db.yml\n- path: [x.yml, y.yml]\nservices: {web: {image: w}}\n",
            sub__db_yml="services: {db: {image: d, pid: host}}",
            x_yml="services: {x: {image: x}}",
            y_yml="services: {x: {privileged: true}}",
        )
        assert target(found, "db").id == f"{tmp_path}/sub/db.yml:db"
        assert only(target(found, "x"), facts.Privileged).value
        assert set(found) == {"web", "db", "x"}

    def test_files_that_include_each_other_are_told_once(self, tmp_path: Path) -> None:
        found = on_disk(
            tmp_path,
            compose_yml="include: [a.yml]\nservices: {web: {image: w}}\n",
            a_yml="include: [compose.yml]\nservices: {a: {image: a}}\n",
        )
        assert {"web", "a", "compose.yml includes itself"} == set(found)


def test_broken_files_are_one_error() -> None:
    for text in ("services: [", "- a", "services: {a: {image: a}, a: {}}"):
        with pytest.raises(Broken):
            everything(text)
