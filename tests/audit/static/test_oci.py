"""What a config.json of an OCI runtime declares."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

import pytest

from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source
from stockade.audit.facts import (
    CapabilitySets,
    CgroupLimit,
    DeviceNode,
    DevicePolicy,
    EngineSocket,
    Identity,
    Mask,
    Mount,
    Namespace,
    NoNewPrivs,
    OomScoreAdj,
    ReadOnlyRoot,
    ResourceLimit,
    Runtime,
    SysctlSetting,
    Target,
    Unset,
    UserNamespace,
    Variable,
    WorkingDirectory,
)
from stockade.audit.static.oci import targets
from stockade.sandbox.linux import capabilities as caps
from stockade.sandbox.linux.idmap import Mapping
from tests.audit.static.oci_help import BASE, config, everything, only


def host_spaces(target: Target) -> set[str]:
    return {space.kind for space in target.all(Namespace) if space.host}


def test_a_namespace_that_is_not_listed_is_the_hosts() -> None:
    listed = [{"type": "pid"}, {"type": "mount"}, {"type": "network"}]

    assert host_spaces(config(linux__namespaces=listed)) == {"ipc", "uts", "cgroup", "time", "user"}
    assert host_spaces(config(linux=None)) == {"pid", "mnt", "net", "ipc", "uts", "cgroup", "time", "user"}


@pytest.mark.parametrize(
    ("path", "host", "shared"),
    [
        ("/proc/1/ns/net", True, ()),
        ("/proc/self/ns/net", True, ()),
        ("/proc/4711/ns/net", False, ("/proc/4711/ns/net",)),
        ("/var/run/netns/cni-5c1d", False, ()),
        ("/var/run/docker/netns/default", True, ()),
        ("/var/run/docker/netns/1a2b3c", False, ()),
    ],
)
def test_a_namespace_by_path_is_joined(path: str, host: bool, shared: tuple[str, ...]) -> None:  # noqa: FBT001
    target = config(linux__namespaces=[{"type": "network", "path": path}])

    (space,) = [each for each in target.all(Namespace) if each.kind == "net"]
    assert (space.host, space.shared_with) == (host, shared)


def test_without_a_user_namespace_the_ids_are_the_hosts() -> None:
    assert only(config(), UserNamespace).initial


def test_maps_say_which_ids_of_the_host_the_containers_are() -> None:
    maps = [{"containerID": 0, "hostID": 200000, "size": 1000}]
    users = only(
        config(linux__namespaces=[{"type": "user"}], linux__uidMappings=maps, linux__gidMappings=maps), UserNamespace
    )

    assert not users.initial
    assert users.uid_map == (Mapping(0, 200000, 1000),)


def test_a_users_own_engine_is_not_taken_for_host_root() -> None:
    target = config(root={"path": "/home/ada/.local/share/containers/storage/overlay/1a/merged"})

    assert target.one(UserNamespace) is None
    assert target.gap(UserNamespace) is not None


def test_capabilities_are_those_that_execve_leaves() -> None:
    sets = {name: ["CAP_KILL", "CAP_CHOWN"] for name in ("bounding", "effective", "permitted")}
    root = only(config(process__capabilities=sets), CapabilitySets)
    other = only(config(process__capabilities=sets, process__user={"uid": 7, "gid": 7}), CapabilitySets)

    assert root.effective == root.bounding == caps.mask(("KILL", "CHOWN"))
    assert (other.effective, other.bounding) == (0, caps.mask(("KILL", "CHOWN")))


def test_ambient_capabilities_stay_with_another_user() -> None:
    sets = {name: ["CAP_NET_RAW"] for name in ("bounding", "permitted", "inheritable", "ambient")}
    found = only(config(process__capabilities=sets, process__user={"uid": 7, "gid": 7}), CapabilitySets)

    assert found.effective == found.ambient == caps.mask(("NET_RAW",))


def test_absent_capabilities_are_none() -> None:
    assert only(config(), CapabilitySets).effective == 0


def test_switches_are_off_unless_they_are_set() -> None:
    assert not only(config(), NoNewPrivs).value
    assert "no_new_privs" in {each.subject for each in config().all(Unset)}
    assert only(config(process__noNewPrivileges=True), NoNewPrivs).value
    assert only(config(root={"path": "rootfs", "readonly": True}), ReadOnlyRoot).value


def test_ids_and_groups_are_the_users() -> None:
    user = only(config(process__user={"uid": 7, "gid": 8, "additionalGids": [0, 9]}), Identity)

    assert (user.uids, user.gids, user.groups) == ((7, 7, 7, 7), (8, 8, 8, 8), (0, 9))


def test_binds_are_the_hosts_files_and_relative_ones_lie_in_the_bundle() -> None:
    mounts = [
        {"destination": "/a", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]},
        {"destination": "/b", "source": "data", "options": ["bind", "rshared"]},
        {"destination": "/c", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
    ]
    _, *found = config(mounts=mounts).all(Mount)

    assert [(each.host_path, each.writable) for each in found] == [
        ("/etc", False),
        ("/srv/web/data", True),
        (None, True),
    ]
    assert found[1].propagation == "shared"
    assert found[2].super_options == ("size=1m",)


def test_an_engines_socket_is_found_through_the_directory_it_lies_in() -> None:
    mounts = [{"destination": "/host/run", "type": "bind", "source": "/var/run", "options": ["rbind"]}]

    assert only(config(mounts=mounts), EngineSocket).engine == "docker"


def test_masks_are_those_that_are_listed() -> None:
    target = config(linux__maskedPaths=["/proc/kcore"], linux__readonlyPaths=["/proc/sys"])
    states = {mask.path: mask.state for mask in target.all(Mask)}

    assert (states["/proc/kcore"], states["/proc/sys"], states["/proc/sysrq-trigger"]) == (
        "masked",
        "read-only",
        "open",
    )
    # through the mount of /sys itself
    assert states["/sys/firmware"] == states["/sys"] == "read-only"


def test_without_procfs_there_is_nothing_to_mask() -> None:
    assert config(mounts=[]).all(Mask) == ()


def test_device_rules_count_in_their_order() -> None:
    deny = {"allow": False, "access": "rwm"}
    disk = {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "rw"}
    everything_ = {"allow": True, "access": "rwm"}

    closed = only(config(linux__resources={"devices": [everything_, deny, disk]}), DevicePolicy)
    opened = only(config(linux__resources={"devices": [deny, everything_]}), DevicePolicy)

    assert closed.default == "deny"
    assert "b 8:0 rw" in closed.rules
    assert opened.default == "allow"
    assert config().gap(DevicePolicy) is not None


def test_device_nodes_are_those_that_are_made() -> None:
    node = only(config(linux__devices=[{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]), DeviceNode)

    assert (node.kind, node.major, node.minor) == ("block", 8, 0)


def test_limits_are_taken_from_both_versions_of_cgroups() -> None:
    old = {"memory": {"limit": 1 << 20, "swap": -1}, "pids": {"limit": 9}, "cpu": {"quota": 50000, "period": 100000}}
    new = {"unified": {"memory.max": str(1 << 20), "pids.max": "9", "cpu.max": "50000 100000"}}
    wanted = {"memory": 1 << 20, "swap": None, "pids": 9, "cpu": 500}

    for resources in (old, new):
        assert {each.name: each.value for each in config(linux__resources=resources).all(CgroupLimit)} == wanted
    assert {each.value for each in config().all(CgroupLimit)} == {None}


def test_surroundings_are_told() -> None:
    target = config(
        process__env=["PATH=/bin", "DB_PASSWORD=zq8Lr4vB"],
        process__rlimits=[{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 18446744073709551615}],
        process__oomScoreAdj=-500,
        linux__sysctl={"net/ipv4/ip_forward": "1"},
        annotations={"io.podman.annotations.name": "web"},
    )

    assert [(each.name, bool(each.secret)) for each in target.all(Variable)] == [("PATH", False), ("DB_PASSWORD", True)]
    assert "zq8Lr4vB" not in repr(target)
    assert [(each.name, each.soft, each.hard) for each in target.all(ResourceLimit)] == [("nofile", 10, None)]
    assert only(target, OomScoreAdj).value == -500
    assert only(target, SysctlSetting).name == "net.ipv4.ip_forward"
    assert (target.name, only(target, Runtime).engine, target.command) == ("web", "podman", "/bin/app -v")


@pytest.mark.parametrize("path", ["/proc/self/fd/7", "//proc/self/fd/8/../..", "/dev/fd/3"])
def test_a_working_directory_behind_a_descriptor_lies_outside(path: str) -> None:
    assert only(config(process__cwd=path), WorkingDirectory).outside
    assert not only(config(process__cwd="/srv"), WorkingDirectory).outside


def test_places_are_those_of_the_keys_that_decide() -> None:
    text = dedent(
        """\
        {
          "ociVersion": "1.2.0",
          "process": {"user": {"uid": 0},
            "noNewPrivileges": false},
          "mounts": [
            {"destination": "/x", "type": "bind",
             "source": "/"}],
          "linux": {
            "namespaces": [{"type": "pid"}]
          }
        }
        """
    )
    (target,) = [each for each in targets(Source("c.json", text.encode())) if isinstance(each, Target)]

    assert str(only(target, NoNewPrivs).where) == "c.json:4:5"
    assert str(target.all(Mount)[0].where) == "c.json:7:6"
    assert {str(each.where) for each in target.all(Namespace) if each.kind == "net"} == {"c.json:9:5"}
    assert str(only(target, Identity).where) == "c.json:3:24"


def test_a_container_of_windows_has_nothing_that_is_judged() -> None:
    target = config(linux=None, windows={"layerFolders": []})

    assert target.all(Namespace) == ()
    assert target.gaps
    assert not any(gap.applicable for gap in target.gaps)


WRONG = [
    {"linux": []},
    {"process": "sh"},
    {"mounts": [7, {"type": "bind"}]},
    {"linux__namespaces": [{"type": "plutonian"}]},
    {"linux__resources": {"memory": {"limit": "much"}}},
    {"process__capabilities": {"bounding": ["CAP_FLY"]}},
    {"linux__seccomp": {"defaultAction": "SCMP_ACT_SMILE"}},
    {"linux__namespaces": [{"type": "user"}], "linux__uidMappings": [{"containerID": -1, "hostID": 0, "size": 1}]},
]


@pytest.mark.parametrize("sections", WRONG)
def test_a_wrong_part_is_told_with_its_place_and_the_rest_is_judged(sections: dict[str, Any]) -> None:
    found = everything(**sections)

    assert len([each for each in found if isinstance(each, Target)]) == 1
    wrong = [each for each in found if isinstance(each, Broken)]
    assert wrong
    assert all(each.where.line > 1 for each in wrong)


@pytest.mark.parametrize("text", ["[]", "{}{}", '"x"', json.dumps(BASE)[:-30]])
def test_what_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(Broken):
        list(targets(Source("config.json", text.encode())))
