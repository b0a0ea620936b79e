"""Docker's daemon as it is configured: daemon.json, the arguments of running daemons, and what their defaults are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stockade.audit import facts
from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap, Where
from stockade.audit.targets import configuration, listening
from stockade.audit.targets.configuration import Unreadable
from stockade.audit.targets.snapshot import Snapshot
from stockade.sandbox.linux import namespaces, process

#: arguments of dockerd → the name that daemon.json has for them, where it is another (`dockerd --help`)
_ARGUMENTS = {
    "host": "hosts", "H": "hosts", "insecure-registry": "insecure-registries", "log-opt": "log-opts",
    "authorization-plugin": "authorization-plugins", "default-ulimit": "default-ulimits", "exec-opt": "exec-opts",
    "add-runtime": "runtimes", "s": "storage-driver", "l": "log-level", "G": "group", "D": "debug",
}  # fmt: skip
_SWITCHES = frozenset(
    {
        "tls", "tlsverify", "icc", "live-restore", "userland-proxy", "no-new-privileges", "experimental", "iptables",
        "selinux-enabled", "debug", "init", "ip-forward", "ip-masq", "ip6tables", "ipv6", "rootless", "validate",
        "bridge-accept-fwmark", "raw-logs", "http-proxy-insecure",
    }
)  # fmt: skip
#: what the rules ask for
SETTINGS = (
    "userns-remap", "no-new-privileges", "seccomp-profile", "icc", "live-restore", "userland-proxy",
    "insecure-registries", "experimental", "log-driver", "log-opts", "log-level", "authorization-plugins",
    "default-ulimits", "default-cgroupns-mode", "iptables", "storage-driver",
)  # fmt: skip
_FILE = "/etc/docker/daemon.json"


@dataclass
class Daemon:
    """A daemon: what it was told where. `where` is the place where a setting that is absent would stand."""

    where: Where
    rootless: bool = False
    pid: int = 0
    values: dict[str, list[tuple[str, Where]]] = field(default_factory=dict)

    def add(self, name: str, value: str, where: Where) -> None:
        """Add one value of a setting."""
        self.values.setdefault(name, []).append((value, where))

    def last(self, name: str) -> str:
        """Give the value of a setting that has one, or nothing."""
        found = self.values.get(name)
        return found[-1][0] if found else ""


def running(snapshot: Snapshot, *names: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Give pid, uid and arguments of the host's processes that run a program of one of these names.

    Those in a pid namespace of their own are a container's engine, which is no matter of the host's.
    """
    for entry in snapshot.entries.values():
        if entry.inodes.get("pid", namespaces.INITIAL["pid"]) != namespaces.INITIAL["pid"]:
            continue
        try:
            arguments = process.cmdline(entry.pid)
            if arguments and arguments[0].rpartition("/")[2] in names:
                status = process.status(entry.pid)
                if len(status.pids) == 1:  # NSpid says so also to whom the namespaces aren't shown
                    yield entry.pid, status.uids[1], arguments
        except OSError:
            continue


def arguments_of(words: Sequence[str], switches: frozenset[str] = _SWITCHES) -> Iterator[tuple[str, str]]:
    """Give name and value of each option, as Go's pflag reads them: --name=value, --name value, -H value."""
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word in {"-", "--"}:
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--") and len(name) > 1 and not equals:
            name, value, equals = name[0], name[1:], "="  # -H unix:///… as one word
        if not equals:
            value = "true" if name in switches or name == "D" or not rest or rest[0].startswith("-") else rest.pop(0)
        yield _ARGUMENTS.get(name, name), value


def docker(snapshot: Snapshot, file: str = _FILE) -> Iterator[Fact | Gap]:
    """Give the settings and listeners of each Docker daemon that runs, or of the one that is configured."""
    for daemon in _daemons(snapshot, file):
        if isinstance(daemon, Gap):
            yield daemon
            continue
        for name in SETTINGS:
            given = daemon.values.get(name, [])
            yield facts.DaemonSetting(
                where=given[-1][1] if given else daemon.where,
                name=name,
                engine="docker",
                values=tuple([value for value, _ in given if value]),
                rootless=daemon.rootless,
            )
        yield from _listeners(daemon)
        if daemon.pid and not listening.visible(daemon.pid):
            reason = f"on which sockets the daemon (pid {daemon.pid}) listens is shown to root alone"
            yield Gap(facts.DaemonListener, reason, daemon.where)


def _daemons(snapshot: Snapshot, file: str) -> Iterator[Daemon | Gap]:
    found = list(running(snapshot, "dockerd", "dockerd-ce", "docker-daemon"))
    for pid, uid, words in found:
        where = Where(f"/proc/{pid}/cmdline")
        daemon = Daemon(where, rootless=uid != 0, pid=pid)
        for name, value in arguments_of(words):
            daemon.add(name, value, where)
        daemon.rootless |= daemon.last("rootless") == "true"
        # A user's own daemon reads a file in the home directory, which is that user's own business.
        path = daemon.last("config-file") or ("" if daemon.rootless else file)
        yield from _with_file(daemon, path)
    if not found:
        daemon = Daemon(Where(file))
        yield from (each for each in _with_file(daemon, file) if isinstance(each, Gap) or each.values)


def _with_file(daemon: Daemon, path: str) -> Iterator[Daemon | Gap]:
    try:
        data = configuration.read(path) if path else None
        content = documents(data, path) if data is not None and data.strip() else ()
    except (Unreadable, Broken) as error:
        for kind in (facts.DaemonSetting, facts.DaemonListener):
            yield Gap(kind, error.message, error.where)
        return
    if content and isinstance(content[0], Map):
        daemon.where = content[0].where
        _take(daemon, content[0])
    yield daemon


def _take(daemon: Daemon, content: Map) -> None:
    for name, value in content.items():
        for word in configuration.words(value):
            daemon.add(name, word, content.at(name))
        if not any(True for _ in configuration.words(value)):
            daemon.add(name, "", content.at(name))


#: Docker's ports for orders; its others (metrics, swarm) take none
_PORTS = frozenset({2375, 2376})


def _listeners(daemon: Daemon) -> Iterator[Fact]:
    verified, encrypted = daemon.last("tlsverify") == "true", daemon.last("tls") == "true"
    tls: Any = "verified" if verified else "encrypted" if encrypted else "none"
    for address, where in daemon.values.get("hosts", ()):
        if address.startswith("tcp://") or ("://" not in address and not address.startswith(("/", "fd:"))):
            plain = address if "://" in address else f"tcp://{address}"
            yield facts.DaemonListener(where=where, address=plain, engine="docker", tls=tls)
    told = {address.rpartition(":")[2] for address, _ in daemon.values.get("hosts", ())}
    for host, port, path in listening.tcp(daemon.pid) if daemon.pid else ():
        if port in _PORTS and str(port) not in told:
            address = f"tcp://{host}:{port}"
            yield facts.DaemonListener(where=Where(path), address=address, engine="docker", tls=tls)
