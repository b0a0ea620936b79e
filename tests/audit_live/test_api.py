"""What an engine says by its API, as far as the auditor asks."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from stockade.audit.targets import api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID = "3f" * 32
NAMED = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"Name":"/web"}'


class Engine:
    """Answers each request with the same bytes, and keeps the requests; without bytes it never answers."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.requests: list[bytes] = []
        self.answer = answer
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(4096))
                if self.answer:
                    connection.sendall(self.answer)
                else:
                    connection.recv(1)  # until the other end gives up


@pytest.fixture
def engine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    serving = Engine(tmp_path / "docker.sock", request.param)
    yield serving
    serving.socket.close()


def client(tmp_path: Path, owner: int | None = None) -> api.Engines:
    return api.Engines({"docker": str(tmp_path / "docker.sock")}, os.getuid() if owner is None else owner)


@pytest.mark.parametrize("engine", [NAMED], indirect=True)
def test_the_name_of_a_container_is_asked_for_by_get(engine: Engine, tmp_path: Path) -> None:
    assert client(tmp_path).name("docker", ID) == "web"
    assert engine.requests[0].startswith(f"GET /containers/{ID}/json HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("engine", [NAMED], indirect=True)
def test_a_socket_of_another_user_is_not_spoken_to(engine: Engine, tmp_path: Path) -> None:
    assert client(tmp_path, owner=os.getuid() + 1).name("docker", ID) is None
    assert engine.requests == []


@pytest.mark.parametrize(
    "engine", [b"", b"no HTTP", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{{{{{"], indirect=True
)
def test_an_engine_that_does_not_answer_is_asked_once(engine: Engine, tmp_path: Path) -> None:
    asked = client(tmp_path)

    assert asked.name("docker", ID) is None
    assert asked.name("docker", ID) is None
    assert len(engine.requests) == 1


@pytest.mark.parametrize("engine", [b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"], indirect=True)
def test_a_container_that_the_engine_does_not_know_has_no_name(engine: Engine, tmp_path: Path) -> None:
    asked = client(tmp_path)

    assert [asked.name("docker", ID), asked.name("docker", ID)] == [None, None]
    assert len(engine.requests) == 2


def test_what_is_no_id_is_never_part_of_a_request(tmp_path: Path) -> None:
    assert client(tmp_path).container("docker", "../images") is None
