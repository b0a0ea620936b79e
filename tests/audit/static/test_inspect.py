"""What `docker inspect` and `podman inspect` tell of containers."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import pytest

from stockade.audit.documents.kinds import recognise
from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import (
    CapabilitySets,
    CgroupLimit,
    DeviceNode,
    EngineSocket,
    Fact,
    HealthCheck,
    Identity,
    Image,
    LsmLabel,
    Mask,
    Mount,
    Namespace,
    NoNewPrivs,
    Port,
    Privileged,
    ReadOnlyRoot,
    ResourceLimit,
    Runtime,
    SeccompFilter,
    SeccompState,
    SecurityOptions,
    Target,
    UserNamespace,
    Variable,
    WorkingDirectory,
)
from stockade.audit.static.inspect import targets
from stockade.sandbox.linux import capabilities as caps
from stockade.sandbox.linux.idmap import Mapping

F = TypeVar("F", bound=Fact)


def docker(host: dict[str, Any] | None = None, config: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    """Give one container as Docker prints it."""
    return {
        "Id": "4f2a" * 16,
        "Name": "/web",
        "Path": "/bin/app",
        "Args": ["-v"],
        "ResolvConfPath": "/var/lib/docker/containers/4f2a/resolv.conf",
        "AppArmorProfile": "docker-default",
        "HostConfig": {"NetworkMode": "bridge", "CgroupnsMode": "private", "IpcMode": "private", **(host or {})},
        "Mounts": [],
        "Config": {"User": "", "Env": [], "Image": "web:1", **(config or {})},
        "NetworkSettings": {"Ports": {}},
        **top,
    }


def podman(host: dict[str, Any] | None = None, config: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    """Give one container as Podman prints it."""
    whole = docker(host, config, OCIRuntime="crun", IsInfra=False, StaticDir="/var/lib/containers/storage/x/userdata")
    del whole["ResolvConfPath"]
    return {**whole, **top}


def read(*containers: dict[str, Any]) -> list[Target]:
    found = list(targets(Source("i.json", json.dumps(containers, indent=1).encode())))
    assert [each for each in found if isinstance(each, Broken)] == []
    return [each for each in found if isinstance(each, Target)]


def one(container: dict[str, Any]) -> Target:
    (target,) = read(container)
    return target


def only(target: Target, kind: type[F]) -> F:
    (fact,) = target.all(kind)
    return fact


def hosts(target: Target) -> set[str]:
    return {space.kind for space in target.all(Namespace) if space.host}


def test_the_two_engines_are_told_apart() -> None:
    for container, kind in ((docker(), "docker-inspect"), (podman(), "podman-inspect")):
        assert recognise(Source("i.json", json.dumps([container]).encode())) == kind
        assert one(container).kind == kind
        assert only(one(container), Runtime).engine == kind.partition("-")[0]


def test_each_container_of_the_array_is_a_target_and_images_are_none() -> None:
    image = {"Id": "sha256:1", "Config": {}, "RootFS": {}}

    assert [target.id for target in read(docker(), docker(), image)] == ["i.json:web", "i.json:web#2"]


def test_what_is_privileged_has_everything() -> None:
    target = one(docker({"Privileged": True, "MaskedPaths": None, "ReadonlyPaths": None}))

    assert only(target, Privileged).value
    assert only(target, CapabilitySets).effective == caps.ALL
    assert only(target, SeccompState).mode == "disabled"


def test_namespaces_of_the_host_and_of_other_containers_are_known() -> None:
    modes = {"PidMode": "host", "NetworkMode": "container:abc", "UTSMode": "host", "CgroupnsMode": "host"}
    target = one(docker(modes))

    assert hosts(target) >= {"pid", "uts", "cgroup"}
    (net,) = [space for space in target.all(Namespace) if space.kind == "net"]
    assert net.shared_with == ("container:abc",)


@pytest.mark.parametrize(
    ("path", "mode", "host"),
    [
        ("/var/lib/docker/containers/1/hosts", "", True),
        ("/var/lib/docker/231072.231072/containers/1/hosts", "", False),
        ("/var/lib/docker/231072.231072/containers/1/hosts", "host", True),
        ("/home/ada/.local/share/docker/containers/1/hosts", "", False),
        ("/home/ada/.local/share/docker/containers/1/hosts", "host", False),
    ],
)
def test_paths_tell_whether_the_daemon_maps_ids(path: str, mode: str, host: bool) -> None:  # noqa: FBT001
    target = one(docker({"UsernsMode": mode}, ResolvConfPath=path))

    assert only(target, UserNamespace).initial is host
    assert ("user" in hosts(target)) is host


def test_podmans_maps_are_taken() -> None:
    maps = {"UidMap": ["0:5000:100"], "GidMap": ["0:6000:100"]}
    users = only(one(podman({"UsernsMode": "private", "IDMappings": maps})), UserNamespace)

    assert (users.uid_map, users.gid_map) == ((Mapping(0, 5000, 100),), (Mapping(0, 6000, 100),))


def test_capabilities_are_those_that_podman_tells() -> None:
    target = one(podman(BoundingCaps=["CAP_KILL"], EffectiveCaps=["CAP_KILL"]))
    user = one(podman(None, {"User": "7"}, BoundingCaps=["CAP_KILL"], EffectiveCaps=[]))

    assert only(target, CapabilitySets).effective == caps.mask(("KILL",))
    assert (only(user, CapabilitySets).effective, only(user, CapabilitySets).bounding) == (0, caps.mask(("KILL",)))


def test_mounts_are_those_that_are_there() -> None:
    mounts = [
        {"Type": "bind", "Source": "/var/run/docker.sock", "Destination": "/s", "RW": False, "Propagation": "rshared"},
        {"Type": "volume", "Name": "v", "Source": "/var/lib/docker/volumes/v/_data", "Destination": "/v", "RW": True},
    ]
    container = docker({"Binds": ["/etc:/etc"], "Tmpfs": {"/t": "size=1m"}}, Mounts=mounts)
    target = one(container)
    bind, volume, tmpfs = target.all(Mount)

    assert (bind.host_path, bind.writable, bind.propagation) == ("/var/run/docker.sock", False, "shared")
    assert (volume.host_path, tmpfs.fstype) == (None, "tmpfs")
    assert only(target, EngineSocket).engine == "docker"
    lines = json.dumps([container], indent=1).splitlines()
    assert lines[bind.where.line - 1][bind.where.column - 1 :].startswith('"Source": "/var/run/docker.sock"')


def test_a_volume_whose_driver_binds_a_directory_is_the_hosts() -> None:
    driver = {"VolumeOptions": {"DriverConfig": {"Options": {"device": "/etc", "o": "bind", "type": "none"}}}}
    mounts = [{"Type": "volume", "Name": "v", "Source": "/x/_data", "Destination": "/v", "RW": True}]
    target = one(docker({"Mounts": [{"Type": "volume", "Target": "/v", **driver}]}, Mounts=mounts))

    assert only(target, Mount).host_path == "/etc"


def test_masks_are_those_that_docker_lists() -> None:
    states = {
        mask.path: mask.state for mask in one(docker({"MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": []})).all(Mask)
    }

    assert (states["/proc/kcore"], states["/proc/sys"]) == ("masked", "open")
    assert {mask.state for mask in one(docker()).all(Mask)} == {"masked", "read-only"}


def test_the_images_user_is_merged_in() -> None:
    assert only(one(docker()), Identity).uids == (0, 0, 0, 0)
    assert only(one(docker(None, {"User": "7:8"})), Identity).gids == (8, 8, 8, 8)


def test_limits_are_numbers() -> None:
    target = one(docker({"Memory": 1 << 20, "MemorySwap": -1, "NanoCpus": 500000000, "PidsLimit": 9}))
    none = one(podman({"Memory": 0, "PidsLimit": 0}))

    limits = {each.name: each.value for each in target.all(CgroupLimit)}
    assert limits == {"memory": 1 << 20, "swap": None, "pids": 9, "cpu": 500}
    assert {each.value for each in none.all(CgroupLimit)} == {None}
    ulimits = one(docker({"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": -1}]}))
    assert [(each.name, each.soft, each.hard) for each in ulimits.all(ResourceLimit)] == [("nofile", 1, None)]


def test_ports_are_published_or_offered() -> None:
    bindings = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "53/udp": None}  # noqa: S104
    target = one(docker({"PortBindings": bindings}, {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}))

    assert {(each.container_port, each.host_port, each.protocol) for each in target.all(Port)} == {
        (80, 8080, "tcp"),
        (53, None, "udp"),
    }


def test_the_rest_of_the_request_is_taken() -> None:
    host = {
        "ReadonlyRootfs": True,
        "SecurityOpt": ["no-new-privileges", "label=disable"],
        "Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}],
        "Runtime": "runsc",
    }
    config = {
        "Env": ["A=1", "DB_PASSWORD=zq8Lr4vB"],
        "Healthcheck": {"Test": ["NONE"]},
        "WorkingDir": "/proc/self/fd/7",
    }
    target = one(docker(host, config))

    assert only(target, ReadOnlyRoot).value
    assert only(target, NoNewPrivs).value
    assert {each.module: each.label for each in target.all(LsmLabel)} == {
        "selinux": "disable",
        "apparmor": "docker-default",
    }
    assert (only(target, DeviceNode).path, only(target, DeviceNode).kind) == ("/dev/x", "block")
    assert only(target, Runtime).sandbox == "gvisor"
    assert not only(target, HealthCheck).present
    assert only(target, WorkingDirectory).outside
    assert [bool(each.secret) for each in target.all(Variable)] == [False, True]
    assert "zq8Lr4vB" not in repr(target)
    assert (only(target, Image).tag, target.command) == ("1", "/bin/app -v")


def test_a_profile_in_the_request_is_judged_and_not_repeated() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
        ],
    }
    option = f"seccomp={json.dumps(profile)}"
    usual = one(docker({"SecurityOpt": [option]}))
    more = one(docker({"SecurityOpt": [option], "CapAdd": ["SYS_ADMIN"]}))

    assert only(usual, SeccompFilter).allowed == {"read"}
    assert only(more, SeccompFilter).allowed == {"read", "mount"}
    assert only(usual, SecurityOptions).values == ("seccomp=a profile of its own",)


def test_a_profile_that_cannot_be_read_is_a_gap() -> None:
    target = one(docker({"SecurityOpt": ["seccomp={nonsense"]}))

    assert target.one(SeccompFilter) is None
    assert target.gap(SeccompFilter) is not None


@pytest.mark.parametrize("host", [{"Memory": "much"}, {"SecurityOpt": "x"}, {"Devices": [1]}, {"RestartPolicy": 5}])
def test_a_wrong_part_is_told_and_the_rest_is_judged(host: dict[str, Any]) -> None:
    found = list(targets(Source("i.json", json.dumps([docker(host)], indent=1).encode())))

    assert [type(each) for each in found] == [Target, Broken]


def test_text_is_no_array_of_containers() -> None:
    with pytest.raises(Broken):
        list(targets(Source("i.json", b'"HostConfig"')))
