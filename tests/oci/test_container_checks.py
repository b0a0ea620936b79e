"""What one section demands of another, what is mended with a warning, and what this runtime can't do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stockade.errors import UsageError
from stockade.sandbox.oci import read
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.oci.spec import LinuxPersonality

NAMESPACES = [{"type": kind} for kind in ("mount", "ipc", "uts", "network", "pid")]


def config(linux: dict[str, Any] | None = None, **rest: object) -> bytes:
    return json.dumps({"ociVersion": "1.2.0", "linux": {"namespaces": NAMESPACES} | (linux or {})} | rest).encode()


def without(kind: str) -> list[dict[str, str]]:
    return [each for each in NAMESPACES if each["type"] != kind]


def refused(data: bytes) -> str:
    with pytest.raises(UsageError) as error:
        read.bundle(data, "config.json", [])
    return error.value.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (config({"namespaces": without("uts")}, hostname="a"), "$.hostname: needs a uts namespace"),
        (config({"namespaces": without("uts")}, domainname="a"), "$.domainname: needs a uts namespace"),
        (config({"namespaces": without("mount"), "maskedPaths": ["/a"]}), "$.linux.maskedPaths: needs a mount"),
        (config({"namespaces": without("mount"), "readonlyPaths": ["/a"]}), "$.linux.readonlyPaths: needs a mount"),
        (config({"timeOffsets": {"monotonic": {"secs": 1}}}), "$.linux.timeOffsets: needs a time namespace"),
        (config({"intelRdt": {}}), "$.linux.intelRdt: Intel RDT is not supported"),
        (config({"netDevices": {"eth0": {"name": "a"}}}), "$.linux.netDevices: moving network devices"),
    ],
)
def test_a_section_that_contradicts_another_is_refused_with_its_path(data: bytes, message: str) -> None:
    assert refused(data).startswith("config.json: " + message)


@pytest.mark.parametrize(
    "name",
    [
        "kernel.shmmax",
        "kernel/sem",
        "fs.mqueue.queues_max",
        "net.ipv4.ip_forward",
        "net/ipv4/conf/eno2.100/rp_filter",
        "kernel.domainname",
    ],
)
def test_a_sysctl_of_a_namespace_of_the_containers_own_is_taken(name: str) -> None:
    assert read.bundle(config({"sysctl": {name: "1"}}), "c", []).linux.sysctl == {name: "1"}


@pytest.mark.parametrize(
    ("name", "namespaces", "message"),
    [
        ("kernel.shmmax", without("ipc"), "'kernel.shmmax' needs an ipc namespace of the container's own"),
        ("fs/mqueue/msg_max", without("ipc"), "'fs/mqueue/msg_max' needs an ipc namespace"),
        ("net.ipv4.ip_forward", without("network"), "'net.ipv4.ip_forward' needs a network namespace"),
        (
            "net.ipv4.ip_forward",
            [*without("network"), {"type": "network", "path": "/proc/self/ns/net"}],
            "'net.ipv4.ip_forward' needs a network namespace of the container's own",
        ),
        ("kernel.domainname", without("uts"), "'kernel.domainname' needs a uts namespace"),
        ("kernel.hostname", NAMESPACES, "'kernel.hostname' is what $.hostname is for"),
        ("vm.swappiness", NAMESPACES, "'vm.swappiness' is not in a namespace"),
        ("kernel.shmmaxx", NAMESPACES, "'kernel.shmmaxx' is not in a namespace"),
        ("net", NAMESPACES, "'net' is not in a namespace"),
        # with a slash first, dots belong to names: this is kernel.panic's file and no network's
        ("kernel/panic", NAMESPACES, "'kernel/panic' is not in a namespace"),
    ],
)
def test_a_sysctl_of_the_host_is_refused(name: str, namespaces: list[dict[str, str]], message: str) -> None:
    data = config({"sysctl": {name: "1"}, "namespaces": namespaces})

    assert refused(data).startswith(f"config.json: $.linux.sysctl: {message}")


def test_a_network_namespace_that_is_not_there_is_refused_before_its_sysctls_are_set() -> None:
    namespaces = [*without("network"), {"type": "network", "path": "/nonexistent"}]

    message = refused(config({"sysctl": {"net.ipv4.ip_forward": "1"}, "namespaces": namespaces}))

    assert message == "config.json: $.linux.namespaces: network namespace /nonexistent: No such file or directory"


def test_capabilities_that_nobody_knows_are_left_out_with_a_warning_each() -> None:
    held = {"bounding": ["CAP_KILL", "CAP_FLY"], "ambient": ["kill"], "permitted": ["CAP_CHOWN"]}
    process = {"cwd": "/", "args": ["a"], "capabilities": held}
    warnings: list[str] = []

    found = read.bundle(config(process=process), "config.json", warnings)

    assert found.process is not None
    assert found.process.capabilities is not None
    assert found.process.capabilities.bounding == ("CAP_KILL",)
    assert found.process.capabilities.ambient == ()
    assert found.process.capabilities.permitted == ("CAP_CHOWN",)
    assert warnings == [
        '$.process.capabilities.bounding: unknown capability "CAP_FLY" is left out',
        '$.process.capabilities.ambient: unknown capability "kill" is left out',
    ]


def test_a_relative_destination_counts_from_the_root_with_a_warning() -> None:
    warnings: list[str] = []

    found = read.bundle(config(mounts=[{"destination": "proc"}, {"destination": "/sys"}]), "config.json", warnings)

    assert [mount.destination for mount in found.mounts] == ["/proc", "/sys"]
    assert warnings == ["$.mounts[0].destination: 'proc' is taken as relative to /"]


def test_annotations_that_mean_something_to_stockade_itself_have_no_say_in_a_bundle() -> None:
    """Engines pass on annotations of whoever may label a container, and some of ours change what is enforced."""
    data = config(annotations={"org.stockade.root": "tmpfs", "org.stockade.label.a": "b", "org.x": "y"})
    warnings: list[str] = []

    found = read.bundle(data, "config.json", warnings)

    assert found.annotations == {"org.stockade.label.a": "b", "org.x": "y"}
    assert warnings == ['$.annotations["org.stockade.root"]: it has no meaning in a bundle and is left out']
    assert read.snapshot(data, "config.json") == found
    assert read.loads(data).annotations["org.stockade.root"] == "tmpfs"


def test_every_annotation_of_our_own_is_known_by_its_beginning() -> None:
    constants = [value for name, value in vars(oci).items() if name.isupper() and isinstance(value, str)]

    own = [value for value in constants if value.startswith("org.")]

    assert len(own) > 12
    assert [value for value in own if not value.startswith(oci.PRIVATE)] == []


def test_flags_of_a_personality_are_told_of_and_ignored() -> None:
    warnings: list[str] = []

    found = read.bundle(config({"personality": {"domain": "LINUX32", "flags": ["X"]}}), "config.json", warnings)

    assert found.linux.personality == LinuxPersonality("LINUX32")
    assert warnings == ["$.linux.personality.flags: ignored, there are none in the specification"]


def test_the_process_of_exec_is_read_as_strictly() -> None:
    warnings: list[str] = []
    good = b'{"cwd": "/", "args": ["sh"], "capabilities": {"bounding": ["CAP_X"]}}'

    assert read.read_process(good, "process.json", warnings).args == ("sh",)
    assert warnings == ['$.capabilities.bounding: unknown capability "CAP_X" is left out']
    with pytest.raises(UsageError, match=r"^process\.json: \$\.cwd: '' is not an absolute path$"):
        read.read_process(b'{"cwd": "", "args": ["sh"]}', "process.json")


def test_the_resources_of_update_are_read_as_strictly() -> None:
    found = read.read_resources(b'{"memory": {"limit": 5}}', "-")

    assert found.memory is not None
    assert found.memory.limit == 5
    with pytest.raises(UsageError, match=r'^-: \$\.pids\.limit: expected a whole number, not "5"$'):
        read.read_resources(b'{"pids": {"limit": "5"}}', "-")
