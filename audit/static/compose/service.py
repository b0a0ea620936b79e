"""From a service of a compose file to the request that compose makes of it (compose-spec, 05-services.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockade.audit import facts
from stockade.audit.documents.tree import Map, Seq, text
from stockade.audit.facts import Gap
from stockade.audit.static.compose import storage
from stockade.audit.static.docker import confinement, words
from stockade.audit.static.docker.request import Passed, Request, Set, Switch, Word

if TYPE_CHECKING:
    from stockade.audit.facts import Where
    from stockade.audit.static.compose.project import Service
    from stockade.audit.static.compose.reading import Reader

#: keys of one text → the option of `docker run`
_ONE = {
    "userns_mode": "userns", "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroupns",
    "cgroup_parent": "cgroup-parent", "user": "user", "runtime": "runtime", "isolation": "isolation",
    "mem_limit": "memory", "memswap_limit": "memory-swap", "pids_limit": "pids-limit", "cpus": "cpus",
    "cpu_quota": "cpu-quota", "cpu_period": "cpu-period", "shm_size": "shm-size", "oom_score_adj": "oom-score-adj",
    "restart": "restart",
}  # fmt: skip
_SWITCHES = {"privileged": "privileged", "read_only": "read-only", "oom_kill_disable": "oom-kill-disable"}
_MANY = {
    "cap_add": "cap-add", "cap_drop": "cap-drop", "security_opt": "security-opt", "group_add": "group-add",
    "device_cgroup_rules": "device-cgroup-rule",
}  # fmt: skip
#: security options of docker's and podman's
_OPTIONS = frozenset(
    {
        "no-new-privileges", "seccomp", "apparmor", "label", "systempaths", "writable-cgroups", "credentialspec",
        "mask", "unmask", "proc-opts",
    }
)  # fmt: skip


def request(service: Service, reader: Reader) -> Request:
    """Give the request of a service. What is of a wrong type is told to the reader and counts as absent."""
    node = service.node
    profiles = [word for word, _ in reader.texts(node, "profiles", single=True)]
    label = f"service {service.name}" + (f" (profile {', '.join(profiles)})" if profiles else "")
    where = service.node.where
    services = service.project.document.get("services")
    if isinstance(services, Map) and service.name in services:
        where = services.at(service.name)
    elif service.name in service.project.document:
        where = service.project.document.at(service.name)
    made = Request(f"{service.path}:{service.name}", label, "compose", where)
    made.whole = bool({"image", "build", "extends", "provider"} & node.keys())
    _settings(node, made, reader)
    _deploy(node, made, reader)
    _network(service, made, reader)
    _image(node, made, reader)
    _environment(service, made, reader)
    _health(node, made, reader)
    storage.files(service, made, reader)
    storage.devices(node, made, reader)
    storage.ports(node, made, reader)
    _command(node, made)
    return made


def _settings(node: Map, made: Request, reader: Reader) -> None:
    for key, name in _ONE.items():
        value = reader.text(node, key)
        if value is not None:
            made.one[name] = Word(value, node.at(key))
    for key, name in _SWITCHES.items():
        _switch(node, key, name, made, reader)
    for key, name in _MANY.items():
        found = [Word(word, where) for word, where in reader.texts(node, key)]
        if found:
            made.many[name] = found
    sysctls = [Word(f"{name}={value or ''}", where) for name, value, where in reader.pairs(node, "sysctls")]
    if sysctls:
        made.many["sysctl"] = sysctls
    _ulimits(node, made, reader)
    _check(node, made, reader)


def _check(node: Map, made: Request, reader: Reader) -> None:
    """Tell of amounts that are none, and of security options that no engine knows."""
    for keys, known, what in (
        (("mem_limit", "memswap_limit"), words.size, "a size such as 512m"),
        (("cpus", "cpu_quota", "pids_limit", "oom_score_adj"), words.number, "a number"),
    ):
        for key in keys:
            value = reader.text(node, key)
            if value and known(value) is None and "$" not in value:
                reader.refuse(node.at(key), f"{key} must be {what} and is {value[:40]!r}")
    for name, _, where in confinement.options(made):
        if "$" not in name and name not in _OPTIONS:
            reader.refuse(where, f"security_opt: there is no option {name[:40]!r}", hint="docker refuses it")


def _switch(node: Map, key: str, name: str, made: Request, reader: Reader) -> None:
    value = node.get(key)
    known = reader.flag(node, key)
    if known is not None:
        made.switches[name] = Switch(known, node.at(key))
    elif isinstance(value, str) and "$" in value and name == "privileged":
        made.one[name] = Word(value, node.at(key))


def _ulimits(node: Map, made: Request, reader: Reader) -> None:
    limits = reader.map(node, "ulimits")
    if limits is None:
        return
    for name, value in limits.items():
        if isinstance(value, Map):
            word = f"{name}={value.text('soft') or ''}:{value.text('hard') or ''}".rstrip(":")
        else:
            word = f"{name}={text(value) or ''}"
        made.many.setdefault("ulimit", []).append(Word(word, limits.at(name)))


def _deploy(node: Map, made: Request, reader: Reader) -> None:
    """Take limits and the restart policy of `deploy`, which win over the old keys."""
    deploy = reader.map(node, "deploy")
    if deploy is None:
        return
    resources = reader.map(deploy, "resources")
    limits = reader.map(resources, "limits") if resources is not None else None
    for key, name in (("memory", "memory"), ("cpus", "cpus"), ("pids", "pids-limit")):
        value = reader.text(limits, key) if limits is not None else None
        if limits is not None and value is not None:
            made.one[name] = Word(value, limits.at(key))
    policy = reader.map(deploy, "restart_policy")
    if policy is None:
        return
    condition = {"none": "no", "any": "always", "on-failure": "on-failure"}.get(
        reader.text(policy, "condition") or "any", "always"
    )
    attempts = reader.text(policy, "max_attempts")
    word = f"{condition}:{attempts}" if attempts and condition == "on-failure" else condition
    made.one["restart"] = Word(word, policy.at("condition"))


def _network(service: Service, made: Request, reader: Reader) -> None:
    mode = reader.text(service.node, "network_mode")
    if mode is None:
        mode = reader.text(service.node, "net")  # version 1
        key = "net"
    else:
        key = "network_mode"
    if mode is not None:
        made.one["network"] = Word(mode, service.node.at(key))
        return
    networks = service.node.get("networks")
    if not isinstance(networks, Map | Seq):
        return
    for index, name in enumerate(networks):
        entry = service.project.top("networks", str(text(name)))
        if entry is None:
            continue
        external = entry.get("external")
        real = entry.text("name") or (external.text("name") if isinstance(external, Map) else None)
        if entry.text("driver") == "host" or (real == "host" and external):
            where = networks.at(name) if isinstance(networks, Map) else networks.at(index)
            made.one["network"] = Word("host", where)


def _image(node: Map, made: Request, reader: Reader) -> None:
    reference = reader.text(node, "image")
    built = node.get("build") is not None
    if reference:
        made.image, made.local = Word(reference, node.at("image")), built
    elif built:
        made.image, made.local = Word("", node.at("build")), True
    build = node.get("build")
    if isinstance(build, Map):
        # arguments stay in the image's history
        for name, value, where in reader.pairs(build, "args"):
            made.variables.append(Set(where, name, _literal(value), "argument" if _literal(value) is None else ""))


def _environment(service: Service, made: Request, reader: Reader) -> None:
    for name, value, where in reader.pairs(service.node, "environment"):
        literal = _literal(value)
        source = ""
        if literal is None:
            known = (
                words.UNKNOWN.match(value) is not None and _variable(value) in service.project.env
                if value
                else (name in service.project.env)
            )
            source = "file" if known else "host"
        made.variables.append(Set(where, name, literal, source))


def _literal(value: str | None) -> str | None:
    """Give a value that stands in the file; None where it is nothing but a variable."""
    if value is None:
        return None
    bare = value.strip()
    alone = bare.startswith("$") and words.UNKNOWN.match(bare) and (bare.endswith("}") or bare[1:].isidentifier())
    return None if alone and bare.count("$") == 1 else value


def _variable(value: str) -> str:
    bare = value.strip().lstrip("$").strip("{}")
    return bare.partition(":")[0].partition("?")[0]


def _health(node: Map, made: Request, reader: Reader) -> None:
    check = reader.map(node, "healthcheck")
    if check is None:
        return
    test = check.get("test")
    first = text(test[0]) if isinstance(test, Seq) and test else text(test)
    off = reader.flag(check, "disable") is True or first == "NONE"
    place: Where = check.at("disable") if "disable" in check else check.at("test")
    if off or test is not None:
        made.health = Switch(not off, place)


def _command(node: Map, made: Request) -> None:
    command = node.get("command")
    parts = [text(each) or "" for each in command] if isinstance(command, Seq) else [text(command) or ""]
    made.command = " ".join(part for part in parts if part)
    if node.get("provider") is not None:
        made.gaps.append(Gap(facts.Image, "a provider makes the service, which isn't a container of compose's"))
    if node.get("gpus") is not None:
        made.devices.append(Passed(node.at("gpus"), "nvidia.com/gpu=all"))
