"""Podman's, CRI-O's and containerd's configuration files of the system, with the line of what decides.

Of several files the later one decides (containers.conf(5), registries.conf(5)). Users may have files of their own for
their own containers; they are not read.
"""

import glob
from collections.abc import Iterator
from typing import Any

from stockade.audit import facts
from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap, Where
from stockade.audit.targets import configuration
from stockade.audit.targets.configuration import Toml, Unreadable
from stockade.audit.targets.daemon import running
from stockade.audit.targets.snapshot import Snapshot

_CONTAINERS = (
    "seccomp_profile", "apparmor_profile", "label", "default_capabilities", "pidns", "netns", "ipcns", "utsns",
    "cgroupns", "userns", "devices", "volumes", "privileged",
)  # fmt: skip
_DIRECTORIES = ("/usr/share/containers", "/etc/containers")
_CRI = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "cri")


def podman(directories: tuple[str, ...] = _DIRECTORIES) -> Iterator[Fact | Gap]:
    """Give what containers.conf, registries.conf and policy.json say, of the system's files."""
    settings: dict[str, Fact] = {}
    for file in _tomls("containers.conf", directories):
        if isinstance(file, Gap):
            yield file
            continue
        for section, key in [*(("containers", name) for name in _CONTAINERS), ("engine", "no_pivot_root")]:
            if (value := file.get(section, key)) is not None:
                settings[f"{section}.{key}"] = _setting(f"{section}.{key}", value, file.at(section, key))
    yield from settings.values()
    for file in _tomls("registries.conf", directories):
        yield from (file,) if isinstance(file, Gap) else _registries(file)
    yield from _policy(f"{directories[-1]}/policy.json")


def _tomls(name: str, directories: tuple[str, ...]) -> Iterator[Toml | Gap]:
    for directory in directories:
        for path in (f"{directory}/{name}", *sorted(glob.glob(f"{glob.escape(directory)}/{name}.d/*.conf"))):
            try:
                file = configuration.toml(path)
            except Unreadable as error:
                yield Gap(facts.DaemonSetting, error.message, error.where)
                continue
            if file:
                yield file


def _setting(name: str, value: Any, where: Where, engine: Any = "podman") -> facts.DaemonSetting:
    return facts.DaemonSetting(where=where, name=name, engine=engine, values=tuple(configuration.words(value)))


def _registries(file: Toml) -> Iterator[Fact]:
    listed = file.get("registry")
    number = 0  # of the lines with `insecure`, which tables may have or not
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict) or "insecure" not in each:
            continue
        if each["insecure"] is True:
            name = each.get("prefix") or each.get("location")
            yield _setting("insecure-registries", name, file.at("registry", "insecure", index=number))
        number += 1
    older = file.get("registries", "insecure", "registries")  # version 1 of the format
    if older:
        yield _setting("insecure-registries", older, file.at("registries", "insecure", "registries"))


def _policy(path: str) -> Iterator[Fact | Gap]:
    try:
        data = configuration.read(path)
        content = documents(data, path) if data else ()
    except (Unreadable, Broken) as error:
        yield Gap(facts.DaemonSetting, error.message, error.where)
        return
    if not content or not isinstance(content[0], Map):
        return
    default = content[0].seq("default") or ()
    kinds = [each.get("type") for each in default if isinstance(each, Map)]
    yield _setting("policy.default", [kind for kind in kinds if isinstance(kind, str)], content[0].at("default"))


def containerd(path: str = "/etc/containerd/config.toml") -> Iterator[Fact | Gap]:
    """Give what containerd's config.toml says of its listeners and of its CRI plugin."""
    try:
        file = configuration.toml(path)
    except Unreadable as error:
        for kind in (facts.DaemonSetting, facts.DaemonListener):
            yield Gap(kind, error.message, error.where)
        return
    if file is None:
        return
    address = file.get("grpc", "tcp_address")
    if isinstance(address, str) and address:
        # its TCP listener asks for a client's certificate where an authority is named (tcp_tls_ca)
        tls: Any = (
            "verified"
            if file.get("grpc", "tcp_tls_ca")
            else "encrypted"
            if file.get("grpc", "tcp_tls_cert")
            else "none"
        )
        where = file.at("grpc", "tcp_address")
        yield facts.DaemonListener(where=where, address=f"tcp://{address}", engine="containerd", tls=tls)
    for plugin in _CRI:
        for name in ("disable_apparmor", "disable_tcp_service", "unset_seccomp_profile"):
            value = file.get("plugins", plugin, name)
            if value is not None:
                yield _setting(f"cri.{name}", value, file.at("plugins", plugin, name), "containerd")
        configs = file.get("plugins", plugin, "registry", "configs")
        for host, each in configs.items() if isinstance(configs, dict) else ():
            tls_part = each.get("tls") if isinstance(each, dict) else None
            if isinstance(tls_part, dict) and tls_part.get("insecure_skip_verify") is True:
                keys = ("plugins", plugin, "registry", "configs", host, "tls", "insecure_skip_verify")
                yield _setting("insecure-registries", host, file.at(*keys), "containerd")


def services(snapshot: Snapshot) -> Iterator[Fact]:
    """Give the TCP addresses of running `podman system service`, which older versions serve without TLS."""
    for pid, _, words in running(snapshot, "podman"):
        where = Where(f"/proc/{pid}/cmdline")
        for word in words if "service" in words else ():
            if word.startswith("tcp:"):
                verified = any(each.startswith("--tls-client-ca") for each in words)
                yield facts.DaemonListener(
                    where=where,
                    address=f"tcp://{word[4:].lstrip('/')}",
                    engine="podman",
                    tls="verified" if verified else "none",
                )
