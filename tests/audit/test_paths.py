"""Attack paths: each opens with its facts and closes when the one that its fix takes away is gone."""

from __future__ import annotations

import pytest

from stockade.audit import recorded
from stockade.audit.engine import evaluate
from stockade.audit.paths import PATHS
from stockade.audit.report import Severity

HOST_ROOT = """
[Identity]
uids = [0, 0, 0, 0]
host_uids = [0, 0, 0, 0]
"""
INITIAL = """
[UserNamespace]
initial = true
uid_map = ["0:0:4294967295"]
"""


def holding(*names: str) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"[CapabilitySets]\neffective = [{listed}]\npermitted = [{listed}]\nbounding = [{listed}]\n"


CORE = HOST_ROOT + '[[ControlFile]]\npath = "/proc/sys/kernel/core_pattern"\naccess = "write"\noutcome = "opened"\n'
AGENT = (
    HOST_ROOT + '[[ControlFile]]\npath = "/sys/fs/cgroup/memory/release_agent"\naccess = "write"\noutcome = "opened"\n'
)
MOUNT = (
    HOST_ROOT + INITIAL + holding("SYS_ADMIN") + '[Host]\ncgroup = "v1"\n[SeccompFilter]\nallowed = ["mount", "read"]\n'
)
SOCKET = '[[EngineSocket]]\npath = "/run/docker.sock"\nengine = "docker"\npermitted = true\n'
DISK = (
    '[[DeviceNode]]\npath = "/dev/sda"\nkind = "block"\nmajor = 8\nminor = 0\nusable = true\n'
    '[DevicePolicy]\ndefault = "deny"\nrules = ["b 8:* rw"]\n'
)
NODE = HOST_ROOT + INITIAL + holding("MKNOD") + '[DevicePolicy]\ndefault = "allow"\nrules = []\n'
TRACE = HOST_ROOT + INITIAL + holding("SYS_PTRACE") + '[[Namespace]]\nkind = "pid"\nhost = true\n'
MODULE = HOST_ROOT + INITIAL + holding("SYS_MODULE") + '[SeccompFilter]\nallowed = ["finit_module"]\n'
DIRECTORY = '[[OpenDescriptor]]\nfd = 7\ntarget = "/etc"\nkind = "directory"\noutside = true\n'
CWD = '[WorkingDirectory]\npath = "/proc/self/fd/7"\noutside = true\n'
HANDLE = INITIAL + holding("DAC_READ_SEARCH") + '[SeccompFilter]\nallowed = ["open_by_handle_at"]\n'
WRITE = HOST_ROOT + (
    '[[Mount]]\ndestination = "/host"\nfstype = "ext4"\nhost_path = "/etc/cron.d"\nwritable = true\noptions = ["rw"]\n'
)
SETUID = (
    "[NoNewPrivs]\nvalue = false\n"
    '[[ImageFile]]\npath = "/usr/bin/su"\nkind = "setuid"\ndetail = "04755 root"\nlayer = "1"\n'
)
SERVICE = (
    '[[Namespace]]\nkind = "net"\nhost = true\n'
    '[[HostService]]\nname = "@/containerd-shim/1.sock"\nkind = "abstract"\nowner = 0\n'
)


def paths(text: str) -> set[str]:
    return {path.id for path in evaluate(recorded.load(text)).paths}


@pytest.mark.parametrize(
    ("path", "facts", "before", "after"),
    [
        ("AP-CORE", CORE, '"opened"', '"refused"'),
        ("AP-CORE", CORE, 'outcome = "opened"', 'outcome = "opened"\nown_namespace = true'),
        ("AP-RELEASE", AGENT, '"opened"', '"refused"'),
        ("AP-RELEASE", MOUNT, '"v1"', '"v2"'),
        ("AP-RELEASE", MOUNT, '"mount", ', ""),
        ("AP-RELEASE", MOUNT, "initial = true", "initial = false"),
        ("AP-SOCK", SOCKET, "permitted = true", "permitted = false"),
        ("AP-DISK", DISK, '"b 8:* rw"', '"b 8:* m"'),
        ("AP-DISK", DISK, "usable = true", "usable = false"),
        ("AP-DISK", NODE, '"allow"', '"deny"'),
        ("AP-DISK", NODE, "MKNOD", "CHOWN"),
        ("AP-PTRACE", TRACE, 'kind = "pid"\nhost = true', 'kind = "pid"\nhost = false'),
        ("AP-PTRACE", TRACE, "initial = true", "initial = false"),
        ("AP-MODULE", MODULE, "finit_module", "read"),
        ("AP-MODULE", MODULE, "[SeccompFilter]", "[Host]\nmodules_disabled = true\n[SeccompFilter]"),
        ("AP-MODULE", MODULE, "initial = true", "initial = false"),
        ("AP-FD", DIRECTORY, "outside = true", "outside = false"),
        ("AP-FD", CWD, "outside = true", "outside = false"),
        ("AP-HANDLE", HANDLE, "open_by_handle_at", "read"),
        ("AP-HANDLE", HANDLE, "initial = true", "initial = false"),
        ("AP-SUID", SETUID, "value = false", "value = true"),
        ("AP-SUID", SETUID, 'layer = "1"', "removed = true"),
        ("AP-NET", SERVICE, 'kind = "net"\nhost = true', 'kind = "net"\nhost = false'),
        ("AP-NET", SERVICE, "owner = 0", "owner = 1000"),
        ("AP-HOSTWRITE", WRITE, "writable = true", "writable = false"),
        ("AP-HOSTWRITE", WRITE, "host_uids = [0, 0, 0, 0]", "host_uids = [9, 9, 9, 9]"),
    ],
)
def test_a_path_is_open_with_its_facts_and_closed_without_one_of_them(
    path: str, facts: str, before: str, after: str
) -> None:
    assert before in facts

    assert path in paths(facts)
    assert path not in paths(facts.replace(before, after))


def test_every_path_has_a_test_of_its_facts() -> None:
    facts = (CORE, AGENT, SOCKET, DISK, TRACE, MODULE, DIRECTORY, HANDLE, WRITE, SETUID, SERVICE)

    assert {path.id for path in PATHS} == set().union(*map(paths, facts))


def test_the_fix_takes_away_a_piece_of_the_evidence() -> None:
    for facts in (
        CORE,
        AGENT,
        MOUNT,
        SOCKET,
        DISK,
        NODE,
        TRACE,
        MODULE,
        DIRECTORY,
        CWD,
        HANDLE,
        WRITE,
        SETUID,
        SERVICE,
    ):
        for path in evaluate(recorded.load(facts)).paths:
            assert path.breaks in path.evidence, path
            assert path.fix


def test_a_path_names_the_findings_it_rests_on() -> None:
    judged = evaluate(recorded.load(CORE))

    assert judged.paths[0].rests_on == ("helper_program", "host_root")
    assert {"helper_program", "host_root"} <= {finding.rule for finding in judged.findings}


def test_who_can_remount_is_told_to_change_ids_and_not_to_mount_read_only() -> None:
    mask = '[[Mask]]\npath = "/proc/sys"\nstate = "open"\n'

    (cheap,) = [path for path in evaluate(recorded.load(CORE + mask)).paths if path.id == "AP-CORE"]
    admin = evaluate(recorded.load(CORE + INITIAL + mask + holding("SYS_ADMIN"))).paths
    (dear,) = [path for path in admin if path.id == "AP-CORE"]

    assert "read-only" in cheap.fix
    assert "range" in dear.fix


def test_a_kernel_without_modules_makes_the_path_not_applicable() -> None:
    judged = evaluate(recorded.load(MODULE.replace("[SeccompFilter]", "[Host]\nmodules = false\n[SeccompFilter]")))

    assert "AP-MODULE" in {each.rule for each in judged.not_applicable}


def test_a_disk_is_named_before_an_empty_loop_device() -> None:
    loop = DISK.replace("/dev/sda", "/dev/loop0").split("[DevicePolicy]")[0]

    (path,) = evaluate(recorded.load(loop + DISK)).paths

    assert "/dev/sda" in path.evidence[0]


def test_an_engine_of_a_user_counts_less_than_the_machines() -> None:
    own = SOCKET.replace("/run/docker.sock", "/run/user/1000/podman/podman.sock")

    assert evaluate(recorded.load(SOCKET)).paths[0].severity is Severity.CRITICAL
    assert evaluate(recorded.load(own)).paths[0].severity is Severity.HIGH


def test_a_path_that_cannot_be_judged_is_unknown() -> None:
    judged = evaluate(recorded.load('absent = ["ControlFile"]'))

    assert "AP-CORE" in {unknown.rule for unknown in judged.unknown}


# files: nothing was measured, and what a file doesn't tell is said with the path
DECLARED_CORE = """
[Identity]
uids = [0, 0, 0, 0]
host_uids = "unknown"

[UserNamespace]
initial = true

[[Mask]]
path = "/proc/sys"
state = "open"
declared = "open"
"""
DECLARED_AGENT = 'absent = ["Identity"]\n' + INITIAL + holding("SYS_ADMIN") + '[SeccompFilter]\nallowed = ["mount"]\n'


@pytest.mark.parametrize(
    ("path", "facts", "before", "after"),
    [
        ("AP-CORE", DECLARED_CORE, 'state = "open"', 'state = "read-only"'),
        ("AP-CORE", DECLARED_CORE, "uids = [0, 0, 0, 0]", "uids = [9, 9, 9, 9]"),
        ("AP-CORE", DECLARED_CORE, "initial = true", "initial = false"),
        ("AP-RELEASE", DECLARED_AGENT, "SYS_ADMIN", "CHOWN"),
        ("AP-RELEASE", DECLARED_AGENT, "initial = true", "initial = false"),
    ],
)
def test_a_path_that_a_file_declares_is_marked_as_declared(path: str, facts: str, before: str, after: str) -> None:
    (found,) = [each for each in evaluate(recorded.load(facts, kind="compose")).paths if each.id == path]

    assert found.basis == "declared"
    assert "nothing was measured" in found.proof
    closed = evaluate(recorded.load(facts.replace(before, after), kind="compose")).paths
    assert path not in {each.id for each in closed}
    assert path not in paths(facts)
