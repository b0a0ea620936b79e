"""What only a kernel shows of a host's engines: who listens, and who may use a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stockade.audit import facts
from stockade.audit.targets import daemon, daemon_access, host, snapshot
from stockade.audit.targets.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel
CODE = """
import signal, socket
four, six = socket.socket(), socket.socket(socket.AF_INET6)
four.bind(("0.0.0.0", 2375))
six.bind(("::", 2376))
metrics = socket.socket()
metrics.bind(("0.0.0.0", 9323))
for each in (four, six, metrics):
    each.listen()
print(flush=True)
signal.pause()
"""


@pytest.fixture
def dockerd() -> Iterator[int]:
    """Start, in a network of its own, what looks like a Docker daemon that was handed its sockets; give its pid."""
    words = ["unshare", "--net", "bash", "-c", 'exec -a /usr/bin/dockerd "$@"', "-", sys.executable, "-c", CODE]
    with subprocess.Popen([*words, "--host=fd://"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_daemon_listens_where_the_kernel_says_though_its_arguments_do_not(dockerd: int, tmp_path: Path) -> None:
    entry = snapshot.look(dockerd)
    assert entry is not None
    known = daemon.docker(Snapshot({entry.pid: entry}, ()), str(tmp_path / "daemon.json"))

    listeners = {each.address: each for each in known if isinstance(each, facts.DaemonListener)}
    assert listeners.keys() == {"tcp://0.0.0.0:2375", "tcp://[::]:2376"}
    assert listeners["tcp://0.0.0.0:2375"].where.path == f"/proc/{dockerd}/net/tcp"
    assert listeners["tcp://[::]:2376"].tls == "none"


def test_without_a_look_at_namespaces_an_engine_in_a_container_is_not_the_hosts(tmp_path: Path) -> None:
    inner = 'exec -a /usr/bin/dockerd "$@"'
    words = ["unshare", "--pid", "--fork", "--kill-child", "bash", "-c", inner, "-", sys.executable, "-c", CODE]
    with subprocess.Popen(["unshare", "--net", *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        entry = snapshot.look(int(children[0]))
        assert entry is not None
        entry.inodes.clear()  # as for a user who may not see them
        known = list(daemon.docker(Snapshot({entry.pid: entry}, ()), str(tmp_path / "daemon.json")))
        process.kill()

    assert known == []


def test_an_engines_socket_is_told_with_its_mode_and_the_members_of_its_group() -> None:
    view = host.probe()
    group = next(number for number, name in view.group_names.items() if number and name != "root")
    path = "/run/stockade-audit-test/docker.sock"
    os.makedirs(os.path.dirname(path))
    try:
        with socket.socket(socket.AF_UNIX) as serving:
            serving.bind(path)
            serving.listen()
            os.chown(path, 0, group)
            os.chmod(path, 0o660)
            told = list(daemon_access.sockets(host.probe()))
    finally:
        os.unlink(path)
        os.rmdir(os.path.dirname(path))

    found = [each for each in told if isinstance(each, facts.DaemonListener) and each.address == f"unix://{path}"]
    assert [(each.mode, each.owner, each.group) for each in found] == [(0o660, 0, view.group_names[group])]
    members = {each.user for each in told if isinstance(each, facts.EngineMember) and each.socket == path}
    assert members == set(_members(group)) - {"root"}


def _members(group: int) -> Iterator[str]:
    import grp
    import pwd

    yield from grp.getgrgid(group).gr_mem
    yield from (each.pw_name for each in pwd.getpwall() if each.pw_gid == group)
