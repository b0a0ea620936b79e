"""JSON without the json package: the same values, stricter refusals, and nothing heavy imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.errors import UsageError
from stockade.sandbox.oci import lean_json

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refused(data: bytes) -> str:
    with pytest.raises(UsageError) as error:
        lean_json.loads(data, "file")
    return error.value.message


@given(ANY)
def test_what_is_written_is_what_json_reads_and_the_other_way_round(value: object) -> None:
    assert json.loads(lean_json.dumps(value)) == value
    assert json.loads(lean_json.dumps(value, indent=2)) == value
    assert lean_json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), "x") == value


def test_an_indented_document_looks_as_jsons_own() -> None:
    value = {"a": {"b": [1, {"c": "ü\n"}], "d": {}, "e": []}, "f": None}

    assert lean_json.dumps(value, indent=4) == json.dumps(value, indent=4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "file: line 1, column 1: Expecting value"),
        (b'{"a": tru}', "file: line 1, column 7: Expecting value"),
        (b'{\n  "a" 1}', "file: line 2, column 7: Expecting ':' delimiter"),
        (b"{} {}", "file: line 1, column 4: Extra data"),
        (b'"a\nb"', "file: line 1, column 3: Invalid control character at"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'file: "c" is there twice in one object'),
        (b"[NaN]", "file: NaN is not JSON"),
        (b"[-Infinity]", "file: -Infinity is not JSON"),
        (b'["\xc3"]', "file: not UTF-8 at byte 2"),
        (b"\xef\xbb\xbf{}", "file: line 1, column 1: Unexpected UTF-8 BOM"),
        ("[1]".encode("utf-16"), "file: not UTF-8 at byte 0"),
        (b"\x0b[1]", "file: line 1, column 1: Expecting value"),
    ],
)
def test_an_error_says_where_it_is(data: bytes, message: str) -> None:
    assert refused(data).startswith(message)


def test_space_around_a_document_is_json() -> None:
    assert lean_json.loads(b"\r\n\t [1] \n", "file") == [1]


def test_as_many_levels_as_the_limit_says_are_read_and_not_one_more() -> None:
    most = lean_json.MAX_DEPTH

    assert lean_json.loads(b"[" * most + b"]" * most, "file")
    assert "nested too deep" in refused(b"[" * (most + 1) + b"]" * (most + 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        lean_json.dumps([value])


def test_bytes_are_not_written() -> None:
    with pytest.raises(TypeError, match="bytes is not JSON"):
        lean_json.dumps([b""])


def test_reading_a_configuration_imports_nothing_that_costs_milliseconds() -> None:
    data = b'{"ociVersion": "1.0.2", "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}'
    program = f"""
import sys
sys.path = {sys.path}
from stockade.sandbox.oci import read
read.bundle({data!r}, "config.json", [])
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {"json", "re", "functools", "typing", "collections", "enum", "dataclasses", "pathlib", "inspect"}
    assert "stockade" in loaded
    assert loaded & heavy == set()
