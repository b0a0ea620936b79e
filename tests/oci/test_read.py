"""The strict reader of config.json: what it takes, and the one line with which it refuses the rest."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.errors import UsageError
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.oci.read import MAX_BYTES, MAX_DEPTH, loads
from stockade.sandbox.oci.spec import from_json, to_json
from stockade.sandbox.oci.state import State

WHOLE: dict[str, Any] = {
    "ociVersion": "1.1.0",
    "hostname": "box",
    "domainname": "example",
    "root": {"path": "rootfs", "readonly": True},
    "process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 0o22, "additionalGids": [3, 4]},
        "args": ["sh", "-c", "true"],
        "env": ["PATH=/bin", "EMPTY="],
        "cwd": "/",
        "capabilities": {
            kind: ["CAP_KILL"] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 18446744073709551615, "soft": 10}],
        "noNewPrivileges": True,
        "apparmorProfile": "p",
        "oomScoreAdj": -500,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "selinuxLabel": "l",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-1", "final": "1,3"},
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {
            "destination": "/data",
            "source": "/d",
            "options": ["rbind", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 5, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 5, "size": 1}],
        },
    ],
    "hooks": {"prestart": [{"path": "/bin/hook", "args": ["hook"], "env": ["A=1"], "timeout": 5}], "poststop": []},
    "annotations": {"a.b": "c"},
    "linux": {
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 5000, "size": 5}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3}],
            "memory": {"limit": 1, "swap": -1, "kernelTCP": 2, "disableOOMKiller": True, "checkBeforeUpdate": False},
            "cpu": {"shares": 2, "quota": -1, "period": 5, "realtimeRuntime": 1, "cpus": "0-1", "mems": "0", "idle": 1},
            "pids": {"limit": 5},
            "blockIO": {
                "weight": 10,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 600}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 9}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
            "unified": {"memory.high": "max"},
        },
        "cgroupsPath": "/a/b",
        "namespaces": [{"type": "user"}, {"type": "network", "path": "/run/netns/x"}],
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/l",
            "listenerMetadata": "m",
            "syscalls": [
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "m",
        "intelRdt": {"closID": "guaranteed", "l3CacheSchema": "L3:0=7f0", "memBwSchema": "MB:0=70", "enableCMT": True},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1,3", "flags": ["MPOL_F_STATIC_NODES"]},
        "netDevices": {"eth1": {"name": "lan"}},
        "personality": {"domain": "LINUX32"},
        "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 1}},
    },
}


def refused(data: object) -> str:
    with pytest.raises(UsageError) as error:
        from_json(data)
    assert "\n" not in error.value.message
    return error.value.message


def changed(path: str, value: object) -> dict[str, Any]:
    """Give a copy of WHOLE in which the value at a path such as "linux.uidMappings.0.size" is another."""
    data = copy.deepcopy(WHOLE)
    place: Any = data
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    place[int(last) if last.isdigit() else last] = value
    return data


def without_defaults(data: Any) -> Any:
    """Drop what the writer leaves out because it is the default."""
    if isinstance(data, dict):
        kept = {name: without_defaults(value) for name, value in data.items()}
        drop = {"poststop": [], "valueTwo": 0, "major": 0, "minor": 0}
        return {name: value for name, value in kept.items() if not (name in drop and drop[name] == value)}
    return [without_defaults(item) for item in data] if isinstance(data, list) else data


def test_every_field_of_the_specification_is_read_and_written_under_its_own_name() -> None:
    written = to_json(from_json(WHOLE))

    # a throttled device's minor 0 is required and so written; elsewhere 0 is the default
    assert without_defaults(written) == without_defaults(WHOLE)


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.2.1", "1.2.0+dev", "1.3.0-rc.1"])
def test_every_version_of_the_first_major_one_is_read(version: str) -> None:
    assert from_json(changed("ociVersion", version)).oci_version == version


@pytest.mark.parametrize("version", ["", "1.0", "1.0.2.3", "1.0.x", "0.5.0", "10.0.0", "1..0"])
def test_any_other_version_is_refused(version: str) -> None:
    assert refused(changed("ociVersion", version)).startswith(f"config.json: $.ociVersion: version {version!r}")


def test_an_empty_list_of_filter_flags_is_something_else_than_none() -> None:
    assert (
        from_json(changed("linux.seccomp.flags", [])).linux.seccomp
        != from_json(changed("linux.seccomp.flags", None)).linux.seccomp
    )


def test_unknown_fields_are_ignored() -> None:
    assert from_json(changed("linux.somethingNew", {"a": 1})) == from_json(WHOLE)


def test_null_is_an_absent_field_as_gos_decoder_has_it() -> None:
    assert from_json(changed("linux.seccomp", None)).linux.seccomp is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("process.cwd", "tmp", "$.process.cwd: 'tmp' is not an absolute path"),
        ("process.cwd", 5, "$.process.cwd: expected a string, not 5"),
        ("process.args", [], "$.process.args: must not be empty"),
        ("process.args", "sh", '$.process.args: expected an array, not "sh"'),
        ("process.args", ["a\0b"], "$.process.args[0]: a NUL byte in a string"),
        ("process.env", ["A"], "$.process.env[0]: expected NAME=VALUE, not 'A'"),
        ("process.user.uid", -1, "$.process.user.uid: expected a whole number from 0 to 4294967295, not -1"),
        ("process.user.uid", 1.0, "$.process.user.uid: expected a whole number, not 1.0"),
        ("process.user.uid", True, "$.process.user.uid: expected a whole number, not true"),
        (
            "process.user.uid",
            1 << 32,
            "$.process.user.uid: expected a whole number from 0 to 4294967295, not 4294967296",
        ),
        ("process.terminal", "yes", '$.process.terminal: expected true or false, not "yes"'),
        ("process.rlimits.0.soft", 1 << 65, "$.process.rlimits[0].soft: expected a whole number from 0 to 184467"),
        ("process.rlimits.0.type", "NOFILE", "$.process.rlimits[0].type: unknown value 'NOFILE'"),
        ("process.rlimits.0.hard", 5, "$.process.rlimits[0].soft: 10 is above the hard limit 5"),
        ("process.scheduler.flags", ["FAST"], "$.process.scheduler.flags[0]: unknown value 'FAST'"),
        ("process.scheduler.nice", 20, "$.process.scheduler.nice: expected a number from -20 to 19"),
        ("process.scheduler.priority", 5, "$.process.scheduler.priority: only SCHED_FIFO and SCHED_RR"),
        ("process.scheduler.period", 5, "$.process.scheduler.period: only SCHED_DEADLINE has one"),
        ("process.execCPUAffinity.final", "3-1", "$.process.execCPUAffinity.final: '3-1' is not a list"),
        ("process.execCPUAffinity.initial", "1,", "$.process.execCPUAffinity.initial: '1,' is not a list"),
        ("process.consoleSize.width", 1 << 16, "$.process.consoleSize.width: expected a number from 0 to 65535"),
        ("process.user.umask", 0o1000, "$.process.user.umask: expected a number from 0 to 511"),
        ("process.oomScoreAdj", 1001, "$.process.oomScoreAdj: expected a number from -1000 to 1000"),
        ("process.ioPriority.class", "BEST", "$.process.ioPriority.class: unknown value 'BEST'"),
        ("mounts.0.destination", "", "$.mounts[0].destination: must not be empty"),
        ("mounts.1.gidMappings", [], "$.mounts[1].gidMappings: missing: an id map needs uids and gids"),
        ("root.path", "", "$.root.path: must not be empty"),
        ("root", [], "$.root: expected an object, not an array"),
        ("ociVersion", "2.0.0", "$.ociVersion: version '2.0.0' is not known"),
        ("ociVersion", None, "$.ociVersion: missing"),
        ("hooks.prestart.0.path", "hook", "$.hooks.prestart[0].path: 'hook' is not an absolute path"),
        ("hooks.prestart.0.timeout", 0, "$.hooks.prestart[0].timeout: expected a number from 1"),
        ("annotations", {"a": 1}, '$.annotations["a"]: expected a string, not 1'),
        ("linux.uidMappings.1.size", 0, "$.linux.uidMappings[1].size: an id map needs at least one id"),
        ("linux.uidMappings.1.size", 4294967295, "$.linux.uidMappings[1].size: containerID 10 and size"),
        ("linux.uidMappings.1.containerID", 9, "$.linux.uidMappings[1].containerID: overlaps with [0]"),
        ("linux.uidMappings.1.hostID", 999, "$.linux.uidMappings[1].hostID: overlaps with [0]"),
        ("linux.gidMappings", [], "$.linux.gidMappings: missing: an id map needs uids and gids"),
        ("linux.namespaces", [], "$.linux.uidMappings: an id map without a user namespace"),
        ("linux.namespaces.0.type", "mnt", "$.linux.namespaces[0].type: unknown value 'mnt'"),
        ("linux.namespaces.1.type", "user", "$.linux.namespaces[1].type: 'user' is there twice"),
        ("linux.namespaces.1.path", "ns", "$.linux.namespaces[1].path: 'ns' is not an absolute path"),
        ("linux.devices.0.type", "x", "$.linux.devices[0].type: unknown value 'x'"),
        ("linux.devices.0.major", -1, "$.linux.devices[0].major: -1 is no device number"),
        ("linux.resources.devices.0.access", "rx", "$.linux.resources.devices[0].access: 'rx': only r, w and m"),
        ("linux.resources.unified", {"../x": "1"}, "$.linux.resources.unified: '../x' is no name of a cgroup file"),
        (
            "linux.resources.memory.swappiness",
            101,
            "$.linux.resources.memory.swappiness: expected a number from 0 to 100",
        ),
        ("linux.seccomp.defaultAction", "ALLOW", "$.linux.seccomp.defaultAction: unknown value 'ALLOW'"),
        ("linux.seccomp.syscalls.0.names", [], "$.linux.seccomp.syscalls[0].names: must not be empty"),
        (
            "linux.seccomp.syscalls.0.args.0.index",
            6,
            "$.linux.seccomp.syscalls[0].args[0].index: expected a number from 0 to 5",
        ),
        ("linux.seccomp.defaultErrnoRet", 4096, "$.linux.seccomp.defaultErrnoRet: expected a number from 0 to 4095"),
        (
            "linux.seccomp.syscalls.0.errnoRet",
            1,
            "$.linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW returns no errno",
        ),
        ("linux.memoryPolicy.mode", "BIND", "$.linux.memoryPolicy.mode: unknown value 'BIND'"),
        ("linux.memoryPolicy.nodes", "a", "$.linux.memoryPolicy.nodes: 'a' is not a list of memory nodes"),
        ("linux.netDevices", {"a": 1}, '$.linux.netDevices["a"]: expected an object, not 1'),
        ("linux.seccomp.flags", ["FAST"], "$.linux.seccomp.flags[0]: unknown value 'FAST'"),
        ("linux.seccomp.architectures", ["x86"], "$.linux.seccomp.architectures[0]: unknown value 'x86'"),
        ("linux.seccomp.listenerPath", None, "$.linux.seccomp.listenerMetadata: needs listenerPath"),
        ("linux.rootfsPropagation", "open", "$.linux.rootfsPropagation: unknown value 'open'"),
        ("linux.maskedPaths", ["proc"], "$.linux.maskedPaths[0]: 'proc' is not an absolute path"),
        ("linux.sysctl", {"../etc": "1"}, "$.linux.sysctl: '../etc' is no name of a sysctl"),
        ("linux.timeOffsets", {"realtime": {}}, "$.linux.timeOffsets: unknown clock 'realtime'"),
        ("linux.personality.domain", "BSD", "$.linux.personality.domain: unknown value 'BSD'"),
        ("hostname", "\ud800", "$.hostname: half a surrogate pair"),
        ("hostname", {"\x1b[31m": 1}, "$.hostname: expected a string, not an object"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(path: str, value: object, message: str) -> None:
    assert refused(changed(path, value)).startswith("config.json: " + message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b"[]", "$: expected an object, not an array"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"ociVersion": ' + b"9" * 5000 + b"}", "digits"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"x":' * 900 + b"1" + b"}" * 900, "nested too deep"),
        (b'{"a": "' + b"x" * MAX_BYTES + b'"}', f"the limit is {MAX_BYTES}"),
    ],
)
def test_what_is_no_json_of_a_reasonable_size_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UsageError) as error:
        loads(data, "bundle/config.json")

    assert error.value.message.startswith("bundle/config.json: ")
    assert message in error.value.message
    assert len(error.value.message) < 300


def test_unknown_fields_may_be_nested_up_to_the_limit() -> None:
    deep = b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)

    assert loads(b'{"ociVersion": "1.0.2", "x": ' + deep + b"}") == oci.Spec("1.0.2")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
PATHS = [
    "root",
    "process",
    "mounts",
    "hooks",
    "linux",
    "annotations",
    "process.user",
    "process.args",
    "process.env",
    "process.rlimits.0",
    "mounts.0",
    "linux.uidMappings.0",
    "linux.seccomp.syscalls.0",
    "linux.resources.cpu",
    "linux.timeOffsets",
    "linux.devices.0",
    "linux.resources.rdma",
    "linux.namespaces",
    "process.capabilities.ambient",
]


@given(st.sampled_from(PATHS), JSON)
def test_any_json_in_any_place_is_read_or_refused_but_never_an_accident(path: str, value: object) -> None:
    try:
        found = from_json(changed(path, value))
    except UsageError as error:
        assert error.message.startswith("config.json: $")  # noqa: PT017 - either outcome is right
    else:
        assert from_json(to_json(found)) == found


def test_a_state_is_written_as_the_specification_says() -> None:
    state = State("id", "running", "/bundle", 5, {"a": "b"})

    assert to_json(state) == {
        "id": "id",
        "status": "running",
        "bundle": "/bundle",
        "pid": 5,
        "annotations": {"a": "b"},
        "ociVersion": "1.1.0",
    }
    assert to_json(State("id", "stopped", "/b"))["pid"] == 0
