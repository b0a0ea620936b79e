"""Ports: what is published, and where."""

from collections.abc import Iterator

from stockade.audit.facts import Port, Workload
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen

_PUBLISH = "https://docs.docker.com/engine/network/port-publishing/"
_EVERY = frozenset({"", "0.0.0.0", "::", "[::]", "*"})  # noqa: S104 -- compared, not bound


def _text(port: Port) -> str:
    host = "" if port.host_port is None else f"{port.host_ip or '*'}:{port.host_port or 'any'}->"
    return f"{host}{port.container_port if port.container_port is not None else '?'}/{port.protocol}"


def _each(port: Port) -> Iterator[int]:
    for first in (port.host_port, port.container_port):
        if first:
            yield from range(first, first + min(max(port.count, 1), 1024))


@rule(Severity.LOW, _PUBLISH, conditions=("NET-BIND0",), cis=("5.14",), attack=("T1133",), cwe=(668,))
def published_everywhere(port: Port, workload: Workload | None) -> Iterator[Outcome]:
    """A port is published on every address of the host.

    The engine's rules come before the host's own packet filter: what is published is reachable from wherever the host
    is, also where a firewall seems to say otherwise.

    Fix: name the address it is meant for, such as 127.0.0.1:8080:80, and put a proxy in front.

    ```toml bad
    [[Port]]
    container_port = 8080
    host_port = 8080
    ```

    ```toml good
    [[Port]]
    container_port = 8080
    host_port = 8080
    host_ip = "127.0.0.1"
    ```
    """
    if port.host_port is not None and port.host_ip in _EVERY and workload is None:
        title = f"port {port.container_port} is published on every address of the host"
        yield Found(title, port.where, (seen(port, _text(port)),), key=_text(port))


@rule(Severity.LOW, "https://kubernetes.io/docs/concepts/configuration/overview/", conditions=("NET-HOSTPORT",),
      cis=("K8S 5.2.13",), attack=("T1133",), cwe=(668,))  # fmt: skip
def host_port(port: Port, workload: Workload) -> Iterator[Outcome]:
    """A pod takes a port of the node.

    It is reachable past Services and network policies, and no other pod of the node can have the port.

    Fix: use a Service; leave hostPort out.

    ```toml bad
    [Workload]
    kind = "Pod"
    name = "web"
    namespace = "shop"

    [[Port]]
    container_port = 8080
    host_port = 8080
    ```

    ```toml good
    [Workload]
    kind = "Pod"
    name = "web"
    namespace = "shop"

    [[Port]]
    container_port = 8080
    ```
    """
    if port.host_port and workload.kind:
        title = f"port {port.host_port} of the node is taken"
        yield Found(title, port.where, (seen(port, f"hostPort: {port.host_port}"),), key=_text(port))


@rule(Severity.INFO, "https://man7.org/linux/man-pages/man7/capabilities.7.html", conditions=("NET-PRIVPORT",),
      cis=("5.8",), cwe=(250,))  # fmt: skip
def privileged_port(port: Port) -> Iterator[Outcome]:
    """A port below 1024 is used.

    Programs start as root to bind it, or keep CAP_NET_BIND_SERVICE; inside a container there is no need to.

    Fix: let the program listen on a port from 1024 on and publish that.

    ```toml bad
    [[Port]]
    container_port = 80
    ```

    ```toml good
    [[Port]]
    container_port = 8080
    ```
    """
    low = sorted({number for number in _each(port) if number < 1024 and number != 22})  # ssh_port tells of that
    if low:
        title = f"port {low[0]} is below 1024"
        yield Found(title, port.where, (seen(port, _text(port)),), key=_text(port))


@rule(Severity.LOW, "https://docs.docker.com/build/building/best-practices/", conditions=("IMG-PORT22", "NET-PRIVPORT"),
      cis=("5.7",), attack=("T1021.004",), cwe=(284,))  # fmt: skip
def ssh_port(port: Port) -> Iterator[Outcome]:
    """The container offers the port of ssh.

    A login daemon inside a container is one more program to keep up to date, with keys or passwords in the image.

    Fix: leave sshd out; docker exec and kubectl exec give a shell.

    ```toml bad
    [[Port]]
    container_port = 22
    ```

    ```toml good
    [[Port]]
    container_port = 2222
    ```
    """
    inside = port.container_port
    if inside is not None and inside <= 22 < inside + max(port.count, 1) and port.protocol in {"tcp", ""}:
        yield Found("the container offers port 22, that of ssh", port.where, (seen(port, _text(port)),), key="22")
