"""The steps as data: the launcher's list and ours agree, and the bytes are those that plan.c reads."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from stockade.sandbox import steps

SOURCE = Path(__file__).resolve().parents[2] / "sandbox/native/plan.h"


def test_the_launcher_and_the_steps_have_the_same_operations_in_the_same_order() -> None:
    block = re.search(r"#define OPS\(X\)(.*?)\n\nenum op", SOURCE.read_text(), re.DOTALL)
    assert block is not None
    in_c = re.findall(r"X\((\w+)\)", block.group(1))

    in_python = [re.sub(r"(?<!^)(?=[A-Z])", "_", operation.__name__).upper() for operation in steps.OPERATIONS]

    assert in_python == in_c


def test_each_operation_has_a_reason() -> None:
    assert [operation.__name__ for operation in steps.OPERATIONS if not operation.why] == []


def test_a_text_is_its_length_its_bytes_and_zeros_to_the_next_multiple_of_eight() -> None:
    step = steps.Hostname("böx12345")

    encoded = step.encode()

    assert encoded == struct.pack("<IIQ", steps.Hostname.op, 24, 9) + "böx12345".encode() + b"\0" * 7


def test_a_program_is_three_lengths_and_three_lists() -> None:
    encoded = steps.Execute(("/bin/a",), ("a", ""), ()).encode()

    assert encoded[8:32] == struct.pack("<3Q", 1, 2, 0)
    assert encoded.count(b"/bin/a") == 1
    assert len(encoded) % 8 == 0


def test_an_undecodable_byte_of_an_argument_comes_through() -> None:
    assert b"\xff\xfe" in steps.Execute(("/bin/a",), ("\udcff\udcfe",), ()).encode()
