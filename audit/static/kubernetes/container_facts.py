"""What one container declares: ids, privileges, confinement, files, limits, ports, variables."""

from collections.abc import Iterator, Mapping
from typing import Literal

from stockade.audit.facts import (
    CgroupLimit,
    DeviceNode,
    Fact,
    Gap,
    HostProcess,
    LsmLabel,
    Mount,
    Probe,
    ReadOnlyRoot,
    RunAsNonRoot,
    SeccompState,
)
from stockade.audit.static import building
from stockade.audit.static.kubernetes import confinement, settings, volumes
from stockade.audit.static.kubernetes.contexts import Container
from stockade.audit.static.kubernetes.index import Index

_RESOURCES: tuple[Literal["memory", "cpu"], ...] = ("memory", "cpu")


def user(container: Container) -> int | None:
    """Give the uid that the spec asks for; None leaves it to the image."""
    return container.reader.number(container.both("runAsUser")[0], "runAsUser")


def identity(container: Container) -> Iterator[Fact]:
    """Give the ids. Without `runAsUser` the image decides about them."""
    reader = container.reader
    where = container.both("runAsUser")[1]
    gid = reader.number(container.both("runAsGroup")[0], "runAsGroup")
    yield from building.identity(where, user(container), gid, _groups(container))
    context, where = container.both("runAsNonRoot")
    asked = reader.flag(context, "runAsNonRoot")
    yield RunAsNonRoot(where=where, value=asked is True)
    if asked is None:
        yield building.unset(where, "run_as_non_root")


def _groups(container: Container) -> tuple[int, ...]:
    """Give the additional groups that the pod names."""
    context, _ = container.of_pod("supplementalGroups")
    listed = container.reader.sequence(context, "supplementalGroups")
    groups = [each for each in listed or () if isinstance(each, int) and not isinstance(each, bool)]
    volume_group = container.reader.number(context, "fsGroup")
    return tuple(dict.fromkeys([*groups, *(() if volume_group is None else (volume_group,))]))


def privileges(container: Container) -> Iterator[Fact | Gap]:
    """Give capabilities and confinement, or in their place what `privileged` makes of them."""
    context, where = container.alone("privileged")
    privileged = container.reader.flag(context, "privileged") is True
    yield from building.privileged(where, value=privileged)
    if not privileged:
        yield from _capabilities(container)
        yield from _masks(container)
        yield from _seccomp(container)
        yield from _apparmor(container)
    yield from _selinux(container)
    if not container.own and not container.inherited:
        yield building.unset(container.node.at("securityContext"), "security_context")


def switches(container: Container) -> Iterator[Fact]:
    """Give the truth values of the container's security context."""
    reader = container.reader
    context, where = container.alone("allowPrivilegeEscalation")
    asked = reader.flag(context, "allowPrivilegeEscalation")
    yield building.no_new_privs(where, value=asked is False)
    if asked is None:
        yield building.unset(where, "no_new_privs")
    context, where = container.alone("readOnlyRootFilesystem")
    asked = reader.flag(context, "readOnlyRootFilesystem")
    yield ReadOnlyRoot(where=where, value=asked is True)
    if asked is None:
        yield building.unset(where, "read_only_root")


def host_process(container: Container) -> Fact:
    """Say whether Windows runs the container on the node itself."""
    context, where = container.both("windowsOptions")
    options = container.reader.mapping(context, "windowsOptions")
    host = options is not None and container.reader.flag(options, "hostProcess") is True
    return HostProcess(where=options.at("hostProcess") if options is not None else where, value=host)


def _capabilities(container: Container) -> Iterator[Fact]:
    context, where = container.alone("capabilities")
    change = container.reader.mapping(context, "capabilities")
    uid = user(container)
    root = None if uid is None else uid == 0
    if change is None:
        yield from building.capabilities(where, engine="kubernetes", root=root)
        yield building.unset(where, "capabilities")
        return
    added = [name for name, _ in container.reader.texts(change, "add")]
    dropped = [name for name, _ in container.reader.texts(change, "drop")]
    yield from building.capabilities(
        change.at("add"), added, dropped, engine="kubernetes", root=root, drop_where=change.at("drop")
    )


def _masks(container: Container) -> Iterator[Fact]:
    context, where = container.alone("procMount")
    mount = container.reader.text(context, "procMount") or "Default"
    if mount not in {"Default", "Unmasked"}:
        container.reader.refuse(where, "procMount", "Default or Unmasked", mount)
    # what is neither of the two asks for less than the default all the same
    yield from building.masks(where, unmasked=mount != "Default")


def _seccomp(container: Container) -> Iterator[Fact | Gap]:
    asked = confinement.seccomp(container)
    if asked.profile == "unset":
        yield building.seccomp(asked.where, None)
        yield Gap(SeccompState, "it depends on the kubelet's seccompDefault", asked.where)
    elif asked.profile == "unknown":
        container.reader.refuse(asked.where, "seccompProfile", "RuntimeDefault, Localhost or Unconfined", asked.name)
        yield building.seccomp(asked.where, None)
        yield Gap(SeccompState, f"{asked.name!r} is no profile", asked.where)
    else:
        names = {"default": "RuntimeDefault", "unconfined": "unconfined"}
        yield building.seccomp(asked.where, names.get(asked.profile, f"localhost/{asked.name}"))


def _apparmor(container: Container) -> Iterator[Fact]:
    asked = confinement.apparmor(container)
    if asked.profile == "unknown":
        # the kubelet of 1.29 and before refuses the pod; since then the annotation means nothing
        container.reader.refuse(asked.where, "the profile", "runtime/default or localhost/NAME", asked.name)
        yield LsmLabel(where=asked.where, module="apparmor", label=f"{asked.name} (no profile)", mode="unconfined")
        return
    names = {"unset": None, "default": "runtime/default", "unconfined": "unconfined"}
    yield building.apparmor(asked.where, names.get(asked.profile, f"localhost/{asked.name}"))


def _selinux(container: Container) -> Iterator[Fact]:
    asked = confinement.selinux(container)
    if asked is None:
        yield building.unset(container.both("seLinuxOptions")[1], "selinux")
    else:
        yield building.selinux(asked.where, user=asked.user, role=asked.role, type_=asked.type, level=asked.level)


def files(container: Container, known: Mapping[str, volumes.Volume]) -> Iterator[Fact]:
    """Give the mounts, the block devices, and the kinds of the volumes behind them."""
    used: dict[str, volumes.Volume] = {}
    for mount in volumes.mounted(container, known):
        used[mount.volume.name] = mount.volume
        yield from _mount(mount)
    for where, path, volume in volumes.devices(container, known):
        if volume is not None:
            used[volume.name] = volume
        yield DeviceNode(where=where, path=path, kind="block", major=-1, minor=-1, usable=True, policy=True)
    yield from map(volumes.volume_type, used.values())


def _mount(mount: volumes.Mounted) -> Iterator[Fact]:
    if mount.host_path is None:
        yield Mount(
            where=mount.where,
            destination=mount.destination,
            fstype=None,
            host_path=None,
            writable=mount.writable,
            options=mount.options,
            subpath=mount.sub_path,
        )
        return
    yield from building.bind(
        mount.where,
        mount.destination,
        mount.host_path,
        writable=mount.writable,
        options=mount.options,
        propagation=mount.propagation,
        subpath=mount.sub_path,
    )


def resources(container: Container) -> Iterator[Fact | Gap]:
    """Give limits and requests."""
    for name in _RESOURCES:
        limit = settings.amount(container, "limits", name)
        yield building.limit(limit.where, name, limit.value)
        if limit.value is None:
            yield building.unset(limit.where, name)
            # the API server takes the limit for a request that is missing
            request = settings.amount(container, "requests", name)
            if request.value is None:
                yield building.unset(request.where, f"{name}_request")
    yield Gap(CgroupLimit, "the number of processes depends on the kubelet's podPidsLimit", container.node.where)


def offered(container: Container, index: Index) -> Iterator[Fact]:
    """Give the image, the ports, the variables and the probes."""
    reference = container.reader.text(container.node, "image")
    if reference:
        yield building.image(container.node.at("image"), reference)
    for port in settings.ports(container):
        yield building.port(
            port.where, port.container_port, host_port=port.host_port, host_ip=port.host_ip, protocol=port.protocol
        )
    for named in settings.variables(container, index):
        yield building.variable(named.where, named.name, named.value, named.source)
    for where, name, host in settings.probes(container):
        yield Probe(where=where, name=name, host=host)
    for subject in ("liveness", "readiness"):
        if container.role == "container" and not container.node.get(f"{subject}Probe"):
            yield building.unset(container.node.where, subject)
