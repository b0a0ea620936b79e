"""The host as a target of its own: its kernel, its engines' configuration, who may use them, what is installed."""

import os
from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.facts import Fact, Gap, Target
from stockade.audit.targets import daemon, daemon_access, host_settings, podman, versions
from stockade.audit.targets.host import HostView
from stockade.audit.targets.snapshot import Snapshot
from stockade.errors import StockadeError

_KINDS: frozenset[type[Fact]] = frozenset(
    {
        facts.HostSetting, facts.SubordinateIds, facts.DaemonSetting, facts.DaemonListener, facts.EngineMember,
        facts.HostFile, facts.InstalledVersion,
    }
)  # fmt: skip


def collect(host: HostView, snapshot: Snapshot) -> Target:
    """Look at the host. Raises StockadeError where the auditor doesn't stand on it."""
    if not host.trusted:
        raise StockadeError(host.outside_reason, hint="run it on the host")
    known: list[Fact] = [host.fact]
    gaps: dict[type[Fact], Gap] = {}
    for each in _everything(host, snapshot):
        if isinstance(each, Gap):
            gaps.setdefault(each.kind, each)
        else:
            known.append(each)
    return Target("host", os.uname().nodename, "host", tuple(known), tuple(gaps.values()), _KINDS - gaps.keys())


def _everything(host: HostView, snapshot: Snapshot) -> Iterator[Fact | Gap]:
    collectors = (
        host_settings.settings(host),
        host_settings.subordinate(host),
        daemon.docker(snapshot),
        podman.podman(),
        podman.containerd(),
        podman.services(snapshot),
        versions.programs(),
        versions.kernel(),
        daemon_access.sockets(host),
        daemon_access.files(host),
    )
    for collector in collectors:
        yield from collector
