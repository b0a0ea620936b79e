"""containerd as Kubernetes uses it: its CRI service, asked as the kubelet asks it, with the runtime under test.

CRI is gRPC: protocol buffers over HTTP/2. What a client of one call at a time needs of either is below; the numbers are
those of api.proto of k8s.io/cri-api, v1.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from tests.kernel.clients.under_test import configured
from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.clients.docker import Docker

HANDLER = "stockade"  # as docs/containerd.md names it, and the RuntimeClass of docs/kubernetes.md
IMAGE = "localhost/busybox:latest"
PAUSE = "localhost/pause:1"
SOCKET = "run/containerd/containerd.sock"
STATES = "run/containerd/runc/k8s.io"
# Not of the runtime: an image for the pods' first container, where Debian has the network plugins, and for machines
# whose root may not lower an oom_score_adj, which pods have at -998.
EXTRA = f"""
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
"""
CNI = """{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.79.0.0/24"}]]}}]}"""
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4
Value = int | str | bytes


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def message(*fields: tuple[int, Value]) -> bytes:
    """Encode a protocol buffer: each field by its number; a message within is bytes."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return out


def fields(data: bytes) -> dict[int, list[int | bytes]]:
    """Decode a protocol buffer into its fields by number."""
    found: dict[int, list[int | bytes]] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while at < len(data):
        key = varint()
        value: int | bytes = varint()
        if key & 7 == 2:
            at += int(value)
            value = data[at - int(value) : at]
        found.setdefault(key >> 3, []).append(value)
    return found


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _frames(connection: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    with connection.makefile("rb") as stream:
        while header := stream.read(9):
            kind, flags = header[3], header[4]
            yield kind, flags, stream.read(int.from_bytes(header[:3], "big"))


def call(path: Path, method: str, request: bytes) -> dict[int, list[int | bytes]]:
    """Call a method of a gRPC service on a socket; its answer's fields. A refusal is an AssertionError."""
    names = {":method": "POST", ":scheme": "http", ":path": f"/runtime.v1.{method}", ":authority": "localhost"}
    names |= {"content-type": "application/grpc", "te": "trailers"}
    literal = b"".join(  # neither indexed nor compressed
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in names.items()
    )
    answer = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0))
        connection.sendall(_frame(HEADERS, END_HEADERS, 1, literal))
        connection.sendall(_frame(DATA, END_STREAM, 1, b"\0" + struct.pack(">I", len(request)) + request))
        for kind, flags, payload in _frames(connection):
            if kind in {SETTINGS, PING} and not flags & ACK:
                connection.sendall(_frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == DATA:
                answer += payload
            elif kind == HEADERS and flags & END_STREAM:
                break
    assert answer, f"{method} is refused"  # why is in the trailers, which are compressed, and in the log
    return fields(answer[5:])


class Cri:
    """A containerd whose CRI service is asked: a pod with one container at a time."""

    def __init__(self, docker: Docker) -> None:
        self.world = docker.world
        self.socket = self.world.root / SOCKET
        self.log = self.world.directory / "containerd.log"
        configuration = configured("containerd.md", "toml")
        (self.world.root / "tmp/config.toml").write_text(configuration + EXTRA)
        (self.world.root / "etc/cni/net.d/10-pods.conflist").write_text(CNI)
        with open(self.log, "wb") as log:
            self.world.start(["containerd", "--config", "/tmp/config.toml"], stdout=log)
        ctr = ("ctr", "--address", f"/{SOCKET}", "--namespace", "k8s.io")
        eventually(lambda: self.world.run(*ctr, "version").returncode == 0, what="containerd to answer")
        docker("import", "-c", 'CMD ["/bin/sleep", "1000000"]', "/tmp/image.tar", PAUSE, check=True)
        docker("save", "--output", "/tmp/image.docker", IMAGE, PAUSE, check=True)
        self.world.run(*ctr, "image", "import", "/tmp/image.docker", check=True)

    def call(self, method: str, *request: tuple[int, Value]) -> dict[int, list[int | bytes]]:
        """Call a method of the runtime service."""
        try:
            return call(self.socket, f"RuntimeService/{method}", message(*request))
        except AssertionError as error:
            said = [line for line in self.log.read_text().splitlines() if "level=error" in line]
            raise AssertionError(f"{error}: {said[-1:]}") from error

    def state(self, identity: str) -> Path:
        """Give the directory in which the runtime under test keeps a container, as this process sees it."""
        return self.world.root / STATES / identity

    def clean(self) -> None:
        """Remove every pod."""
        for pod in self.call("ListPodSandbox").get(1, []):
            identity = as_text(fields(as_bytes(pod))[1][0])
            self.call("StopPodSandbox", (1, identity))
            self.call("RemovePodSandbox", (1, identity))

    def pod(self, *sandbox: tuple[int, Value], name: str = "podded") -> tuple[str, bytes]:
        """Start a pod of the runtime class; give its id and its configuration."""
        metadata = message((1, "pod"), (2, "uid"), (3, "default"))
        configuration = message((1, metadata), (2, name), (3, "/tmp/logs"), *sandbox)
        return as_text(self.call("RunPodSandbox", (1, configuration), (2, HANDLER))[1][0]), configuration

    def container(
        self,
        pod: tuple[str, bytes],
        name: str,
        *options: tuple[int, Value],
        command: tuple[str, ...] = ("sleep", "1000"),
    ) -> str:
        """Start a container of a pod; give its id."""
        image, words = message((1, IMAGE)), [(3, word) for word in command]
        configuration = message((1, message((1, name))), (2, image), *words, (11, f"{name}.log"), *options)
        identity = as_text(self.call("CreateContainer", (1, pod[0]), (2, configuration), (3, pod[1]))[1][0])
        self.call("StartContainer", (1, identity))
        return identity

    def exec(self, identity: str, *command: str) -> tuple[int, str, str]:
        """Run a command in a container: its exit code, its standard output and its standard error."""
        words = [(2, word) for word in command]
        answer = self.call("ExecSync", (1, identity), *words, (3, 20))
        out, err = (as_text(answer.get(number, [b""])[0]) for number in (1, 2))
        return int(answer.get(3, [0])[0]), out, err


def as_bytes(value: int | bytes) -> bytes:
    """Give a field that is bytes."""
    assert isinstance(value, bytes)
    return value


def as_text(value: int | bytes) -> str:
    """Give a field that is text."""
    return as_bytes(value).decode()
