"""Who may give an engine orders: its sockets with mode, owner and group, that group's members, its files' owners."""

import glob
import os
import stat
from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.facts import Fact, Gap, Where
from stockade.audit.targets.host import HostView

_FILES = (
    "/etc/docker", "/etc/docker/daemon.json", "/etc/docker/*.pem", "/etc/docker/certs.d", "/etc/default/docker",
    "/etc/sysconfig/docker", "/etc/containerd", "/etc/containerd/config.toml", "/etc/containers",
    "/etc/containers/*.conf", "/etc/containers/*.conf.d/*.conf", "/etc/containers/policy.json", "/etc/crio/crio.conf",
    "/etc/subuid", "/etc/subgid", "/usr/bin/dockerd", "/usr/bin/containerd", "/usr/bin/runc", "/usr/sbin/runc",
    "/usr/bin/crun", "/usr/bin/podman", "/usr/bin/conmon", "/usr/bin/docker-init",
)  # fmt: skip
_UNITS = tuple(
    f"{directory}/systemd/system/{name}"
    for directory in ("/etc", "/usr/lib", "/lib")
    for name in (
        "docker.service", "docker.socket", "docker.service.d/*.conf", "containerd.service", "podman.service",
        "podman.socket", "crio.service",
    )
)  # fmt: skip
_KEYS = ("key.pem", "-key.pem")


def sockets(host: HostView) -> Iterator[Fact | Gap]:
    """Give the engines' sockets and, of each that a group may write, the group's members."""
    told: set[tuple[str, str]] = set()
    for path, engine in host.sockets:
        if engine == "systemd":  # the system bus is for everyone, and asks polkit
            continue
        try:
            status = os.lstat(path)
        except OSError:
            continue
        group = host.group_names.get(status.st_gid, str(status.st_gid))
        yield facts.DaemonListener(
            where=Where(path),
            address=f"unix://{path}",
            engine=engine,
            mode=stat.S_IMODE(status.st_mode),
            owner=status.st_uid,
            group=group,
        )
        if status.st_mode & 0o020 and status.st_gid and status.st_uid == 0:
            for user, where in _members(status.st_gid):
                if (user, group) not in told and user != "root":
                    told.add((user, group))
                    yield facts.EngineMember(where=where, user=user, group=group, socket=path)


def _members(group: int, etc: str = "/etc") -> Iterator[tuple[str, Where]]:
    for line, fields in _rows(f"{etc}/group"):
        if len(fields) > 3 and fields[2] == str(group):
            for user in filter(None, fields[3].split(",")):
                yield user, Where(f"{etc}/group", line)
    for line, fields in _rows(f"{etc}/passwd"):
        if len(fields) > 3 and fields[3] == str(group):
            yield fields[0], Where(f"{etc}/passwd", line)


def _rows(path: str) -> Iterator[tuple[int, list[str]]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, 1):
                yield number, line.rstrip("\n").split(":")
    except OSError:
        return


def files(host: HostView, patterns: tuple[str, ...] = (*_FILES, *_UNITS)) -> Iterator[facts.HostFile]:
    """Give owner and mode of the files that decide about the system's engines."""
    seen: set[tuple[int, int]] = set()
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)) if "*" in pattern else [pattern]:
            if host.remote(path):
                continue
            try:
                status = os.stat(path)
            except OSError:
                continue
            if (status.st_dev, status.st_ino) in seen:  # /lib is /usr/lib
                continue
            seen.add((status.st_dev, status.st_ino))
            yield facts.HostFile(
                where=Where(path),
                path=path,
                mode=stat.S_IMODE(status.st_mode),
                owner=status.st_uid,
                group=status.st_gid,
                key=path.endswith(_KEYS),
            )
