"""Puts what inspect prints of a container into the request that stands for it."""

import re
from collections.abc import Iterator

from stockade.audit.documents.tree import Map, Seq, text
from stockade.audit.facts import Where
from stockade.audit.static.docker import words
from stockade.audit.static.docker.request import Mounted, Passed, Published, Request, Set, Switch, Word
from stockade.audit.static.reading import Reader

_TEXTS = (
    ("PidMode", "pid"), ("NetworkMode", "network"), ("IpcMode", "ipc"), ("UTSMode", "uts"),
    ("CgroupnsMode", "cgroupns"), ("CgroupMode", "cgroupns"), ("UsernsMode", "userns"),
    ("CgroupParent", "cgroup-parent"),
)  # fmt: skip
_LISTS = (
    ("CapAdd", "cap-add"), ("CapDrop", "cap-drop"), ("GroupAdd", "group-add"),
    ("DeviceCgroupRules", "device-cgroup-rule"),
)  # fmt: skip
_SWITCHES = (("Privileged", "privileged"), ("ReadonlyRootfs", "read-only"), ("OomKillDisable", "oom-kill-disable"))
_NUMBERS = (
    ("Memory", "memory"), ("MemorySwap", "memory-swap"), ("PidsLimit", "pids-limit"), ("CpuQuota", "cpu-quota"),
    ("CpuPeriod", "cpu-period"), ("OomScoreAdj", "oom-score-adj"),
)  # fmt: skip
#: a directory of Docker's data that is named by the ids which userns-remap gives, or one in a user's home
_REMAPPED = re.compile(r"/docker/\d+\.\d+/")
_ROOTLESS = re.compile(r"/\.local/share/(?:docker|containers)/|^/run/user/[1-9]")
_PLACES = ("StaticDir", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "ConmonPidFile", "PidFile")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(\w+))?$")


def fill(request: Request, item: Map, host: Map, config: Map, reader: Reader) -> None:
    """Fill a request from one container: `host` is its HostConfig, `config` its Config."""
    _settings(request, host, reader)
    _confinement(request, host, reader)
    _users(request, item, host, reader)
    request.mounts += _mounts(item, host, reader)
    tmpfs = reader.mapping(host, "Tmpfs")
    if tmpfs is not None:
        request.many["tmpfs"] = [Word(f"{path}:{text(value) or ''}", tmpfs.at(path)) for path, value in tmpfs.items()]
    request.devices += _devices(host, reader)
    request.ports += _ports(item, host, config, reader)
    _program(request, item, config, reader)


def _settings(request: Request, host: Map, reader: Reader) -> None:
    for key, name in _TEXTS:
        value = reader.text(host, key)
        if value is not None and value != "default":
            request.one[name] = Word(value, host.at(key))
    for key, name in _NUMBERS:
        number = reader.number(host, key)
        if number is not None and (number or key in {"PidsLimit", "OomScoreAdj"}):
            request.one[name] = Word(str(number), host.at(key))
    request.one.setdefault("pids-limit", Word("0", host.at("PidsLimit")))
    nano = reader.number(host, "NanoCpus")
    if nano:
        request.one["cpus"] = Word(str(nano / 1e9), host.at("NanoCpus"))
    for key, name in _SWITCHES:
        flag = reader.flag(host, key)
        if flag is not None:
            request.switches[name] = Switch(flag, host.at(key))
    policy = reader.mapping(host, "RestartPolicy")
    if policy is not None:
        name = reader.text(policy, "Name") or "no"
        limit = reader.number(policy, "MaximumRetryCount") or 0
        request.one["restart"] = Word(f"{name}:{limit}" if limit > 0 else name, policy.at("Name"))
    request.many["ulimit"] = [_ulimit(entry, reader) for entry in reader.mappings(host, "Ulimits")]
    sysctls = reader.mapping(host, "Sysctls")
    if sysctls is not None:
        request.many["sysctl"] = [Word(f"{key}={text(value) or ''}", sysctls.at(key)) for key, value in sysctls.items()]


def _ulimit(entry: Map, reader: Reader) -> Word:
    name = (reader.text(entry, "Name") or "").removeprefix("RLIMIT_").lower()
    soft, hard = [reader.number(entry, key) for key in ("Soft", "Hard")]
    return Word(f"{name}={soft}:{hard}", entry.at("Name"))


def _confinement(request: Request, host: Map, reader: Reader) -> None:
    for key, name in _LISTS:
        found = [Word(value, where) for value, where in reader.texts(host, key)]
        if found:
            request.many[name] = found
    options = []
    for value, where in reader.texts(host, "SecurityOpt"):
        # Docker's command line puts the content of a profile here
        whole = value.startswith("seccomp=") and value[8:].lstrip().startswith("{")
        options.append(Word("seccomp=a profile of its own" if whole else value, where))
    # given in a list, the masks are told exactly; without one this option is what opens them
    if options:
        request.many["security-opt"] = options


def _users(request: Request, item: Map, host: Map, reader: Reader) -> None:
    """Say whose ids the container's are: by its mode, its maps, or by where the engine keeps its files."""
    maps = reader.mapping(host, "IDMappings")
    for key, name in (("UidMap", "uidmap"), ("GidMap", "gidmap")):
        found = [Word(value, where) for value, where in reader.texts(maps, key)] if maps is not None else []
        if found:
            request.many[name] = found
    places = [(key, value) for key in _PLACES if (value := reader.text(item, key))]
    rootless = next((key for key, value in places if _ROOTLESS.search(value)), None)
    remapped = next((key for key, value in places if _REMAPPED.search(value)), None)
    if rootless:
        request.rootless = True
        if request.text("userns") == "host":
            del request.one["userns"]  # the host's, as seen by an engine that isn't root
        elif "uidmap" in request.many:
            # these maps begin with the ids of the user's own namespace, which the file doesn't tell
            request.many.pop("uidmap")
            request.one["userns"] = Word("private", item.at(rootless))
    elif "userns" not in request.one and places:
        request.rootless = False
        key = remapped or places[0][0]
        request.one["userns"] = Word("private" if remapped else "host", item.at(key))


def _mounts(item: Map, host: Map, reader: Reader) -> Iterator[Mounted]:
    if not isinstance(item.get("Mounts"), Seq):
        for value, where in reader.texts(host, "Binds"):
            yield words.volume(value, where)
        return
    drivers = {
        target: options
        for entry in reader.mappings(host, "Mounts")
        if (target := reader.text(entry, "Target")) and (options := _driver(entry, reader)) is not None
    }
    for entry in reader.mappings(item, "Mounts"):
        destination = reader.text(entry, "Destination") or ""
        device = drivers.get(destination)
        yield Mounted(
            where=entry.at("Source" if "Source" in entry else "Destination"),
            kind=reader.text(entry, "Type") or "bind",
            source=reader.text(entry, "Source") or reader.text(entry, "Name") or "",
            destination=destination,
            writable=reader.flag(entry, "RW") is not False,
            options=_options(entry, reader),
            propagation=reader.text(entry, "Propagation"),
            device=(reader.text(device, "device") or "") if device is not None else "",
            fstype=_fstype(device, reader) if device is not None else "",
        )


def _options(entry: Map, reader: Reader) -> tuple[str, ...]:
    listed = [value for value, _ in reader.texts(entry, "Options")]
    if not listed:
        return ()
    return ("rw" if reader.flag(entry, "RW") is not False else "ro", *listed)


def _driver(entry: Map, reader: Reader) -> Map | None:
    options: Map | None = entry
    for key in ("VolumeOptions", "DriverConfig", "Options"):
        options = reader.mapping(options, key) if options is not None else None
    return options


def _fstype(device: Map, reader: Reader) -> str:
    bind = "bind" in (reader.text(device, "o") or "").split(",")
    return "bind" if bind else reader.text(device, "type") or ""


def _devices(host: Map, reader: Reader) -> Iterator[Passed]:
    for entry in reader.mappings(host, "Devices"):
        source = reader.text(entry, "PathOnHost") or ""
        access = reader.text(entry, "CgroupPermissions") or "rwm"
        yield Passed(entry.at("PathOnHost"), source, reader.text(entry, "PathInContainer") or "", access)
    for entry in reader.mappings(host, "DeviceRequests"):
        driver = reader.text(entry, "Driver") or ""
        if driver == "cdi":
            yield from (Passed(where, name) for name, where in reader.texts(entry, "DeviceIDs"))
        else:
            yield Passed(entry.where, "nvidia.com/gpu=all")


def _ports(item: Map, host: Map, config: Map, reader: Reader) -> Iterator[Published]:
    """Give the ports: those that are published now, those that will be, those that the image offers."""
    settings = reader.mapping(item, "NetworkSettings")
    published = reader.mapping(settings, "Ports") if settings is not None else None
    exposed = reader.mapping(config, "ExposedPorts")
    every = reader.flag(host, "PublishAllPorts") is True
    told: set[str] = set()
    for section in (published, reader.mapping(host, "PortBindings"), exposed):
        for key in section or ():
            if section is None or key in told:
                continue
            bindings = section.get(key)
            if isinstance(bindings, Seq) and bindings:
                told.add(key)
                yield from _bound(key, bindings, reader)
            elif section is exposed:
                yield from _port(key, section.at(key), 0 if every else None, "")


def _bound(key: str, bindings: Seq, reader: Reader) -> Iterator[Published]:
    for index, entry in enumerate(bindings):
        if isinstance(entry, Map):
            number = reader.text(entry, "HostPort") or "0"
            host_port = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0
            yield from _port(key, bindings.at(index), host_port, reader.text(entry, "HostIp") or "")


def _port(key: str, where: Where, host_port: int | None, address: str) -> Iterator[Published]:
    match = _PORT.match(key)
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        count = max(last - first + 1, 1)
        yield Published(where, first, host_port, address, (match[3] or "tcp").lower(), count)


def _program(request: Request, item: Map, config: Map, reader: Reader) -> None:
    # the image's user is merged in: without one it is root
    request.one["user"] = Word(reader.text(config, "User") or "0", config.at("User"))
    for value, where in reader.texts(config, "Env"):
        name, _, content = value.partition("=")
        request.variables.append(Set(where, name, content))
    key = "ImageName" if reader.text(item, "ImageName") else "Image"
    section = item if key == "ImageName" else config
    reference = reader.text(section, key)
    if reference is not None:
        request.image = Word(reference, section.at(key))
        request.local = reference.startswith(("localhost/", "sha256:")) or bool(re.fullmatch("[0-9a-f]{64}", reference))
    health = reader.mapping(config, "Healthcheck")
    if health is not None:
        test = [value for value, _ in reader.texts(health, "Test")]
        request.health = Switch(bool(test) and test[0] != "NONE", config.at("Healthcheck"))
    parts = [reader.text(item, "Path") or "", *(value for value, _ in reader.texts(item, "Args"))]
    request.command = " ".join(each for each in parts if each)
