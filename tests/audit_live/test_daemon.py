"""How the engines of a host are configured, from recorded files and from the arguments of a process that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from stockade.audit import facts
from stockade.audit.engine import evaluate
from stockade.audit.facts import Gap, Target
from stockade.audit.targets import daemon, daemon_access, podman, snapshot
from stockade.audit.targets.host import HostView
from stockade.audit.targets.snapshot import Snapshot
from stockade.sandbox.linux import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from stockade.audit.facts import Fact

EMPTY = Snapshot({}, ())


def found(known: Iterable[Fact | Gap]) -> dict[str, str]:
    """Give title → place of what is found in facts of the host."""
    told = list(known)
    target = Target("host", "here", "host", tuple([each for each in told if not isinstance(each, Gap)]))
    return {each.title: str(each.location) for each in evaluate(target).findings}


def settings(known: Iterable[Fact | Gap]) -> dict[str, facts.DaemonSetting]:
    return {each.name: each for each in known if isinstance(each, facts.DaemonSetting)}


def test_a_setting_of_daemon_json_is_found_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{\n  "hosts": ["unix:///x", "tcp://0.0.0.0:2375"],\n  "seccomp-profile": "unconfined"\n}\n')

    titles = found(daemon.docker(EMPTY, str(file)))

    assert titles["docker takes orders at tcp://0.0.0.0:2375, without TLS"] == f"{file}:2:3"
    assert titles["Docker's containers have no seccomp filter"] == f"{file}:3:3"
    assert titles["Docker maps root of its containers to the host's root"] == f"{file}:1:1"


def test_a_hardened_daemon_has_no_finding(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    hardened = {
        "userns-remap": "default", "no-new-privileges": True, "icc": False, "live-restore": True,
        "userland-proxy": False, "log-opts": {"max-size": "10m"}, "tlsverify": True,
        "hosts": ["tcp://0.0.0.0:2376"], "authorization-plugins": ["opa"],
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}},
    }  # fmt: skip
    file.write_text(json.dumps(hardened))

    assert found(daemon.docker(EMPTY, str(file))) == {}


def test_without_a_daemon_and_its_file_nothing_is_said(tmp_path: Path) -> None:
    assert list(daemon.docker(EMPTY, str(tmp_path / "daemon.json"))) == []


def test_a_broken_file_is_a_gap_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{\n  "icc": \n')

    gaps = [each for each in daemon.docker(EMPTY, str(file)) if isinstance(each, Gap)]

    assert {gap.kind for gap in gaps} == {facts.DaemonSetting, facts.DaemonListener}
    assert all(gap.where and gap.where.path == str(file) for gap in gaps)


def test_a_fifo_in_the_place_of_a_file_does_not_hang_the_auditor(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "daemon.json")

    assert all(isinstance(each, Gap) for each in daemon.docker(EMPTY, str(tmp_path / "daemon.json")))


@pytest.fixture
def dockerd() -> Iterator[subprocess.Popen[str]]:
    """Start a process that looks like a Docker daemon with arguments."""
    options = ("--host=tcp://127.0.0.1:2375", "-H", "fd://", "--icc=false", "--tls", "--userns-remap", "default")
    words = ["/usr/bin/dockerd", "-c", "print(flush=True); import signal; signal.pause()", *options]
    with subprocess.Popen(words, executable=sys.executable, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_the_arguments_of_a_daemon_that_runs_count(dockerd: subprocess.Popen[str], tmp_path: Path) -> None:
    entry = snapshot.look(dockerd.pid)
    assert entry is not None
    known = list(daemon.docker(Snapshot({entry.pid: entry}, ()), str(tmp_path / "daemon.json")))

    assert settings(known)["icc"].values == ("false",)
    assert settings(known)["userns-remap"].values == ("default",)
    assert [each.address for each in known if isinstance(each, facts.DaemonListener)] == ["tcp://127.0.0.1:2375"]
    where = found(known)["docker takes orders at tcp://127.0.0.1:2375, encrypted, from any client"]
    assert where == f"/proc/{dockerd.pid}/cmdline"


def test_the_daemon_of_another_pid_namespace_is_not_the_hosts(dockerd: subprocess.Popen[str], tmp_path: Path) -> None:
    entry = snapshot.look(dockerd.pid)
    assert entry is not None
    entry.inodes["pid"] = 7

    assert list(daemon.docker(Snapshot({entry.pid: entry}, ()), str(tmp_path / "daemon.json"))) == []


def test_of_several_containers_conf_the_last_decides(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "etc/containers.conf.d").mkdir(parents=True)
    (tmp_path / "usr/containers.conf").write_text('[containers]\nseccomp_profile = "unconfined"\npidns = "host"\n')
    (tmp_path / "etc/containers.conf.d/9.conf").write_text('# ours\n[containers]\npidns = "private"\n')

    known = settings(podman.podman((str(tmp_path / "usr"), str(tmp_path / "etc"))))

    assert known["containers.pidns"].values == ("private",)
    assert str(known["containers.pidns"].where) == f"{tmp_path}/etc/containers.conf.d/9.conf:3"
    assert found(known.values()) == {"containers have no seccomp filter": f"{tmp_path}/usr/containers.conf:2"}


def test_each_insecure_registry_has_the_line_that_says_so(tmp_path: Path) -> None:
    text = '[[registry]]\nlocation = "a.example"\n[[registry]]\nlocation = "b.example"\ninsecure = false\n'
    (tmp_path / "registries.conf").write_text(text + '[[registry]]\nlocation = "c.example"\ninsecure = true\n')

    assert found(podman.podman((str(tmp_path),))) == {
        "podman takes images unverified from c.example": f"{tmp_path}/registries.conf:8"
    }


def test_containerds_settings_of_the_cri_plugin_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'version = 2\n[grpc]\n  tcp_address = "0.0.0.0:2000"\n[plugins."io.containerd.grpc.v1.cri"]\n'
        '  disable_apparmor = true\n[plugins."io.containerd.grpc.v1.cri".registry.configs."r.example".tls]\n'
        "  insecure_skip_verify = true\n"
    )

    assert found(podman.containerd(str(file))) == {
        "containerd takes orders at tcp://0.0.0.0:2000, without TLS": f"{file}:3",
        "AppArmor doesn't confine pods": f"{file}:5",
        "containerd takes images unverified from r.example": f"{file}:7",
    }


def test_who_may_change_an_engines_file_is_told_by_owner_and_mode(tmp_path: Path) -> None:
    for name, mode in (("open", 0o666), ("shut", 0o644), ("client-key.pem", 0o444), ("server-key.pem", 0o400)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    view = HostView({**namespaces.INITIAL}, {**namespaces.INITIAL}, ())
    patterns = (str(tmp_path / "open"), str(tmp_path / "shut"), str(tmp_path / "*.pem"))
    known = [replace(each, owner=0, group=0) for each in daemon_access.files(view, patterns)]

    assert set(found(known)) == {
        f"everyone may write {tmp_path}/open",
        f"others may read the private key {tmp_path}/client-key.pem",
    }
