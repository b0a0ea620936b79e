"""The few parts of D-Bus that are ours: bytes as the specification has them, and a real bus to talk to."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.sandbox.runtime import dbus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("signature", "values", "wire"),
    [
        ("u", (1,), "01000000"),
        ("yu", (5, 1), "0500000001000000"),
        ("b", (True,), "01000000"),
        ("s", ("foo",), "03000000666f6f00"),
        ("g", ("as",), "02617300"),
        ("v", (("u", 7),), "0175000007000000"),
        ("au", ([1, 2],), "080000000100000002000000"),
        ("at", ([],), "0000000000000000"),  # the padding before an element that isn't there
        ("ay", (b"\x03",), "0100000003"),
        ("(yt)", ((1, 2),), "01000000000000000200000000000000"),
        ("a(ss)", ([("a", "b")],), "0e000000000000000100000061000000010000006200"),
    ],
)  # fmt: skip
def test_a_value_has_the_bytes_of_the_specification(signature: str, values: tuple[Any, ...], wire: str) -> None:
    out = bytearray()
    dbus.marshal(signature, values, out)
    assert out.hex() == wire


PROPERTIES = st.lists(
    st.tuples(
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
        st.one_of(
            st.tuples(st.just("t"), st.integers(0, (1 << 64) - 1)),
            st.tuples(st.just("b"), st.booleans()),
            st.tuples(st.just("ay"), st.binary()),
            st.tuples(st.just("s"), st.text(st.characters(exclude_characters="\0", codec="utf-8"))),
            st.tuples(st.just("au"), st.lists(st.integers(0, (1 << 32) - 1))),
            st.tuples(st.just("a(ss)"), st.lists(st.tuples(st.just("/dev/null"), st.just("rw")))),
        ),
    )
)


@given(PROPERTIES, st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_a_call_is_read_back_as_it_was_written(properties: list[Any], name: str) -> None:
    target = ("org.example", "/org/example", "org.example.X", "Member")
    data = dbus.encode_call(9, target, "ssa(sv)", (name, "replace", properties))

    assert dbus.message_size(data) == len(data)
    message = dbus.decode(data)
    assert (message.kind, message.member) == (dbus.CALL, "Member")
    # a variant is read as its value alone
    assert message.body == (name, "replace", [(key, value) for key, (_, value) in properties])


@given(st.binary(min_size=16, max_size=200))
def test_bytes_that_are_no_message_raise_nothing_but_oserror(data: bytes) -> None:
    for order in (b"l", b"B"):
        try:
            size = dbus.message_size(order + data[1:])
            if size <= len(data):
                dbus.decode(order + data[1:size])
        except OSError:
            continue


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unix:path=/run/user/0/bus", ["/run/user/0/bus"]),
        ("unix:path=/run/a%20b,guid=12;unix:abstract=x", ["/run/a b", "\0x"]),
        ("tcp:host=localhost,port=1", []),
        ("", []),
    ],
)
def test_an_address_gives_the_sockets_that_it_names(text: str, found: list[str]) -> None:
    assert dbus.addresses(text) == found


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """A bus of our own, by dbus-daemon; its socket."""
    socket = f"{tmp_path}/bus"
    command = ["dbus-daemon", "--session", "--nofork", "--print-address=1", f"--address=unix:path={socket}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout
        assert daemon.stdout.readline().startswith(b"unix:path=")
        yield socket
        daemon.terminate()


def test_a_bus_takes_us_by_the_credentials_of_the_socket_and_answers(bus: str) -> None:
    connection = dbus.Connection(bus, timeout=5)
    try:
        (names,) = connection.call((*dbus.BUS, "ListNames"))
        assert "org.freedesktop.DBus" in names
        assert connection.call((*dbus.BUS, "NameHasOwner"), "s", "org.example.Nobody") == (False,)
        with pytest.raises(dbus.RemoteError, match="NameHasNoOwner") as caught:
            connection.call((*dbus.BUS, "GetNameOwner"), "s", "org.example.Nobody")
        assert caught.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"
    finally:
        connection.close()


def test_a_signal_that_came_before_it_was_waited_for_is_not_lost(bus: str) -> None:
    connection = dbus.Connection(bus, timeout=5)
    try:
        connection.call((*dbus.BUS, "AddMatch"), "s", "type='signal',member='NameOwnerChanged'")
        other = dbus.Connection(bus, timeout=5)
        other.close()
        connection.call((*dbus.BUS, "GetId"))
        signal = connection.wait_for(lambda message: message.member == "NameOwnerChanged" and not message.body[2])
        assert signal.body[0].startswith(":")
    finally:
        connection.close()


def test_something_else_that_listens_there_is_told_apart(tmp_path: Path) -> None:
    import socket
    import threading

    path = f"{tmp_path}/other"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(100)
                client.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PermissionError, match="220 mail"):
            dbus.Connection(path, timeout=5)
        thread.join()
