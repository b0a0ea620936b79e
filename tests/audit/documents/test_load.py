"""YAML and JSON are read with their places, and what is built to hurt is refused with one place and one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.tree import Map, boolean, integer, text
from stockade.audit.facts import Where


def only(content: str | bytes, path: str = "f.yml") -> Any:
    (document,) = documents(content.encode() if isinstance(content, str) else content, path)
    return document


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("0755", "0755"),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("!!int '7'", 7),
        ("2001-01-01", "2001-01-01"),
        ("9" * 60, "9" * 60),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(written: str, value: object) -> None:
    found = only(f"a: {written}")["a"]

    assert (found, type(found)) == (value, type(value))


def test_a_place_is_that_of_the_key_and_of_an_absent_key_that_of_the_mapping() -> None:
    web = only("services:\n  'web':\n    image: x\n    ports: [ 80, 81 ]\n")["services"]["web"]

    assert web.at("image") == Where("f.yml", 3, 5)
    assert web.at("privileged") == web.where == Where("f.yml", 3, 5)
    assert web["ports"].at(1) == Where("f.yml", 4, 18)
    assert web["ports"].at(9) == Where("f.yml", 4, 12)


def test_what_comes_by_a_merge_or_an_alias_keeps_its_place_and_explicit_keys_win() -> None:
    found = only("x: &x\n  a: 1\n  b: 1\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 3\nw: *x\n")

    assert found["z"] == {"a": 3, "b": 1, "c": 2}
    assert [found["z"].at(key).line for key in "abc"] == [7, 3, 4]
    assert found["w"].at("b").line == 3


def test_tags_of_compose_are_kept() -> None:
    found = only("ports: !reset []\nvolumes: !override [a]\nimage: !reset null\n")

    assert found.tags == {"ports": "!reset", "volumes": "!override", "image": "!reset"}
    assert (found["volumes"].tag, found["image"]) == ("!override", "null")


def test_keys_are_text_and_documents_may_be_many_or_empty() -> None:
    assert documents(b"1: a\ntrue: b\n---\n---\n- x\n", "f") == ({"1": "a", "true": "b"}, None, ["x"])
    assert documents(b"", "f") == ()
    assert documents("\ufeffa: 1".encode(), "f") == ({"a": 1},)
    assert documents("a: ä".encode("utf-16"), "f") == ({"a": "ä"},)


def lines(count: int, text: str) -> str:
    return "".join(text.format(number) for number in range(count))


HOSTILE = {
    "flow nesting": ("a: " + "[" * 100_000, "depth"),
    "block nesting": ("a:\n" + "- " * 100_000, "200 levels"),
    "indented nesting": ("".join(" " * level + "a:\n" for level in range(400)), "200 levels"),
    "an alias bomb": (
        "a0: &a0 [x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
        "aliases stand for more than",
    ),
    "a merge bomb": (
        "a: &a {" + lines(2000, "k{}: 1,") + "}\n" + lines(2000, "b{}: {{<<: *a}}\n"), "aliases stand for more than",
    ),
    "an alias of itself": ("a: &a\n  b: *a\n", "part of which it is a part"),
    "an alias of nothing": ("a: *b\n", "no anchor"),
    "duplicate keys": ("a: 1\nb: 2\na: 3\n", "'a' is there twice, first in line 1"),
    "a mapping as key": ("? {a: b}\n: c\n", "used as a key"),
    "a merged scalar": ("<<: 7\n", "merges mappings only"),
    "a NUL": ("a: \0", "control character 0x00"),
    "no YAML": ("a: b: c", "mapping values are not allowed"),
    "a tab": ("a:\n\t- b", "not YAML"),
    "too many documents": ("---\na\n" * 10_001, "more than 10000 documents"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_built_to_hurt_is_refused_with_its_place(name: str) -> None:
    content, why = HOSTILE[name]

    with pytest.raises(Broken, match=why) as caught:
        documents(content.encode(), "f.yml")

    assert caught.value.where.line > 0
    assert "\n" not in caught.value.message


def test_bytes_that_are_no_utf_8_are_refused_where_they_stand() -> None:
    with pytest.raises(Broken, match="byte 0xff") as caught:
        documents("a: 1\nbä: ".encode() + b"\xff\n", "f.yml")

    assert caught.value.where == Where("f.yml", 2, 5)


def test_a_file_of_many_megabytes_is_refused_before_it_is_read() -> None:
    with pytest.raises(Broken, match="33 MiB"):
        documents(b" " * (33 << 20), "f.yml")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_json_is_read_as_json(value: object, indent: int | str | None, ascii_: bool) -> None:  # noqa: FBT001
    written = json.dumps([value], indent=indent, ensure_ascii=ascii_)
    try:
        data = written.encode()
    except UnicodeEncodeError:
        return
    if "\x7f" in written:
        return

    assert only(data, "f.json") == [value]


def test_json_has_places_and_may_be_several_values() -> None:
    first, second = documents(b'{"a": {\n  "b": [1,\n 2]}}\n{"c": 1}', "f.json")

    assert first["a"].at("b") == Where("f.json", 2, 3)
    assert first["a"]["b"].at(1) == Where("f.json", 3, 2)
    assert second.where == Where("f.json", 4, 1)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('{"a": 1,}', (1, 9)),
        ('{"a" 1}', (1, 6)),
        ("[1,\n 2 3]", (2, 4)),
        ('["a', (1, 2)),
        ('{"a": 1,\n "a": 2}', (2, 2)),
        ("[" * 1000, (1, 201)),
        ('{"a": NaN}', (1, 7)),
        ("[1]]", (1, 4)),
    ],
)
def test_json_that_is_wrong_is_refused_where_it_is(content: str, place: tuple[int, int]) -> None:
    with pytest.raises(Broken) as caught:
        documents(content.encode(), "f.json")

    assert (caught.value.where.line, caught.value.where.column) == place


def test_yaml_in_flow_style_may_look_like_json() -> None:
    assert only("{a: 1, 'b': [x y]}") == {"a": 1, "b": ["x y"]}


def test_values_are_given_as_what_a_reader_wants_them_to_be() -> None:
    found = only("a: yes\nb: 'false'\nc: 5\nd: '7'\ne: 1.0\nf: []\ng: true\nh: x\n")

    assert isinstance(found, Map)
    assert [boolean(found[key]) for key in "abcfgh"] == [True, False, None, None, True, None]
    assert [integer(found[key]) for key in "cdefgh"] == [5, 7, 1, None, None, None]
    assert [text(found[key]) for key in "cfg"] == ["5", None, "true"]
    assert (found.seq("f"), found.map("f"), found.text("a")) == ([], None, "yes")
