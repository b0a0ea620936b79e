"""Volumes, devices and ports of a service, short and long."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stockade.audit.documents.tree import Map, text
from stockade.audit.static.docker import words
from stockade.audit.static.docker.request import Mounted, Passed, Word

if TYPE_CHECKING:
    from stockade.audit.facts import Where
    from stockade.audit.static.compose.project import Project, Service
    from stockade.audit.static.compose.reading import Reader
    from stockade.audit.static.docker.request import Published, Request

_SOCKET = "/var/run/docker.sock"


def files(service: Service, made: Request, reader: Reader) -> None:
    """Take volumes, tmpfs and the files of secrets and configs."""
    node = service.node
    for item, where in reader.items(node, "volumes"):
        mount = _long(item, where, reader) if isinstance(item, Map) else words.volume(text(item) or "", where)
        if mount is not None:
            made.mounts.append(behind(mount, service.project, reader))
    tmpfs = [Word(word, where) for word, where in reader.texts(node, "tmpfs", single=True)]
    if tmpfs:
        made.many["tmpfs"] = tmpfs
    for key, directory in (("secrets", "/run/secrets/"), ("configs", "/")):
        for item, where in reader.items(node, key):
            made.mounts.append(_secret(key, directory, (item, where), service.project))
    if reader.flag(node, "use_api_socket"):
        place = node.at("use_api_socket")
        made.mounts.append(Mounted(place, "bind", _SOCKET, _SOCKET))


def _long(item: Map, where: Where, reader: Reader) -> Mounted | None:
    kind = reader.text(item, "type") or "volume"
    source, destination = reader.text(item, "source") or item.text("src") or "", reader.text(item, "target")
    destination = destination or item.text("destination") or item.text("dst")
    if not destination:
        reader.refuse(item.where, "a volume without a target")
        return None
    read_only = reader.flag(item, "read_only")
    bind, volume = reader.map(item, "bind"), reader.map(item, "volume")
    options = ["ro" if read_only else "rw"]
    propagation = reader.text(bind, "propagation") if bind is not None else None
    if bind is not None and bind.text("selinux"):
        options.append(bind.text("selinux") or "")
    tmpfs = reader.map(item, "tmpfs")
    if tmpfs is not None and tmpfs.text("size"):
        options.append(f"size={tmpfs.text('size')}")
    # the place of what decides: the propagation and the source stand in lines of their own
    place = item.at("source") if "source" in item else where
    made = Mounted(place, kind, source, destination, not read_only, tuple(options), propagation)
    return replace(made, subpath=volume.text("subpath")) if volume is not None else made


def behind(mount: Mounted, project: Project, reader: Reader) -> Mounted:
    """Give a named volume with what its driver mounts: with `o: bind` it is a directory of the host."""
    if mount.kind != "volume" or not mount.source:
        return mount
    entry = project.top("volumes", mount.source)
    options = reader.map(entry, "driver_opts") if entry is not None else None
    if options is None:
        return mount
    kept = options.text("mountpoint")
    if kept:  # the plugin local-persist keeps a volume in a directory of the host
        return replace(mount, device=kept, fstype="bind", where=options.at("mountpoint"))
    device = reader.text(options, "device")
    if not device or (entry is not None and entry.text("driver") not in {None, "local"}):
        return mount
    words_ = (reader.text(options, "o") or "").split(",")
    bound = bool({"bind", "rbind"} & set(words_)) or options.text("type") == "none"
    writable = mount.writable and "ro" not in words_
    fstype = "bind" if bound else options.text("type") or ""
    return replace(mount, device=device, fstype=fstype, writable=writable, where=options.at("device"))


def _secret(key: str, directory: str, entry: tuple[object, Where], project: Project) -> Mounted:
    item, where = entry
    name = (item.text("source") if isinstance(item, Map) else text(item)) or ""
    target = (item.text("target") if isinstance(item, Map) else None) or name
    destination = target if target.startswith("/") else directory + target
    top = project.top(key, name)
    file = top.text("file") if top is not None else None
    if file and key == "configs":
        return Mounted(where, "bind", file, destination, writable=False, options=("ro",))
    return Mounted(where, "secret", name, destination, writable=False, options=("ro",))


def devices(node: Map, made: Request, reader: Reader) -> None:
    """Take devices, also those that `deploy` reserves."""
    for item, where in reader.items(node, "devices"):
        if isinstance(item, Map):
            source = reader.text(item, "source")
            if source:
                access = reader.text(item, "permissions") or "rwm"
                made.devices.append(Passed(item.at("source"), source, reader.text(item, "target") or "", access))
            else:
                reader.refuse(item.where, "a device without a source")
        else:
            made.devices.append(words.device(text(item) or "", where))
    part: Map | None = node
    for key in ("deploy", "resources", "reservations"):
        part = part.map(key) if part is not None else None
    for item, where in reader.items(part, "devices") if part is not None else ():
        wanted = [word for word, _ in reader.texts(item, "capabilities")] if isinstance(item, Map) else []
        driver = (item.text("driver") if isinstance(item, Map) else None) or ""
        if "gpu" in wanted or driver in {"nvidia", "amd"}:
            made.devices.append(Passed(where, "nvidia.com/gpu=all"))


def ports(node: Map, made: Request, reader: Reader) -> None:
    """Take what is published and what is exposed."""
    for item, where in reader.items(node, "ports"):
        port = _port(item, where, reader) if isinstance(item, Map) else words.published(text(item) or "", where)
        if port is not None:
            made.ports.append(port)
        elif not isinstance(item, Map) and "$" not in (text(item) or ""):
            reader.refuse(where, f"ports: {text(item)!r} is no port")
    for word, where in reader.texts(node, "expose"):
        port = words.exposed(word, where)
        if port is not None:
            made.ports.append(port)


def _port(item: Map, where: Where, reader: Reader) -> Published | None:
    inside = reader.text(item, "target")
    if not inside:
        reader.refuse(item.where, "a port without a target")
        return None
    outside = reader.text(item, "published")
    host_ip = reader.text(item, "host_ip") or ""
    protocol = reader.text(item, "protocol") or "tcp"
    found = words.published(f"{outside}:{inside}" if outside else inside, where)
    if found is None:
        return None
    return replace(found, host_ip=host_ip or found.host_ip, protocol=protocol)
