"""The Pod Security Standards: each check against a pod that keeps it and one that differs in one field."""

from __future__ import annotations

import pytest

from stockade.audit import pod_security, recorded

# what restricted asks for; the recording's own container has a user namespace, which most pods have not
GOOD = """
[Workload]
kind = "Pod"
name = "web"
namespace = "shop"

[UserNamespace]
initial = true

[Privileged]
value = false

[RunAsNonRoot]
value = true

[HostProcess]
value = false

[CapabilityChange]
added = ["NET_BIND_SERVICE"]
dropped = ["ALL"]

[[VolumeType]]
name = "data"
kind = "image"
"""


def violated(text: str) -> dict[str, str]:
    pod = pod_security.of(recorded.load(text, kind="kubernetes"))
    assert pod is not None
    return {each.control: each.level for each in pod.violations}


def test_the_good_pod_keeps_both_standards() -> None:
    assert violated(GOOD) == {}


def test_what_is_no_pod_is_not_judged() -> None:
    assert pod_security.of(recorded.load("", kind="compose")) is None


@pytest.mark.parametrize(
    ("control", "level", "before", "after"),
    [
        ("windowsHostProcess", "baseline", "[HostProcess]\nvalue = false", "[HostProcess]\nvalue = true"),
        ("hostNamespaces", "baseline", "", '[[Namespace]]\nkind = "pid"\nhost = true\n'),
        ("hostNamespaces", "baseline", "", '[[Namespace]]\nkind = "net"\nhost = true\n'),
        ("hostNamespaces", "baseline", "", '[[Namespace]]\nkind = "ipc"\nhost = true\n'),
        ("privileged", "baseline", "[Privileged]\nvalue = false", "[Privileged]\nvalue = true"),
        ("capabilities_baseline", "baseline", '["NET_BIND_SERVICE"]', '["NET_RAW"]'),
        ("capabilities_baseline", "baseline", '["NET_BIND_SERVICE"]', '["ALL"]'),
        ("hostPathVolumes", "baseline", '"image"', '"hostPath"'),
        ("hostPorts", "baseline", "", "[[Port]]\ncontainer_port = 80\nhost_port = 80\n"),
        ("hostProbesAndHostLifecycle", "baseline", "", '[[Probe]]\nname = "liveness"\nhost = "127.0.0.1"\n'),
        ("appArmorProfile", "baseline", "", '[[LsmLabel]]\nmodule = "apparmor"\nlabel = "u"\nmode = "unconfined"\n'),
        ("seLinuxOptions", "baseline", "", '[[LsmLabel]]\nmodule = "selinux"\nlabel = "::spc_t:"\n'),
        ("seLinuxOptions", "baseline", "", '[[LsmLabel]]\nmodule = "selinux"\nlabel = "system_u:::"\n'),
        ("procMount", "baseline", "", '[[Mask]]\npath = "/proc/sys"\nstate = "open"\ndeclared = "open"\n'),
        ("seccompProfile_baseline", "baseline", "", '[SeccompState]\nmode = "disabled"\n'),
        ("sysctls", "baseline", "", '[[SysctlSetting]]\nname = "kernel.msgmax"\n'),
        ("restrictedVolumes", "restricted", '"image"', '"nfs"'),
        ("allowPrivilegeEscalation", "restricted", "", "[NoNewPrivs]\nvalue = false\n"),
        ("runAsNonRoot", "restricted", "[RunAsNonRoot]\nvalue = true", "[RunAsNonRoot]\nvalue = false"),
        ("runAsUser", "restricted", "", "[Identity]\nuids = [0, 0, 0, 0]\n"),
        ("seccompProfile_restricted", "restricted", "", '[[Unset]]\nsubject = "seccomp"\n'),
        ("capabilities_restricted", "restricted", 'dropped = ["ALL"]', 'dropped = ["NET_RAW"]'),
        ("capabilities_restricted", "restricted", '["NET_BIND_SERVICE"]', '["CHOWN"]'),
    ],
)
def test_one_field_breaks_one_check(control: str, level: str, before: str, after: str) -> None:
    text = GOOD.replace(before, after) if before else GOOD + after

    assert violated(text) == {control: level}


@pytest.mark.parametrize(
    "more",
    [
        '[[SysctlSetting]]\nname = "net.ipv4.tcp_rmem"\n',
        '[[LsmLabel]]\nmodule = "selinux"\nlabel = "::container_engine_t:s0:c1,c2"\n',
        '[[LsmLabel]]\nmodule = "apparmor"\nlabel = "localhost/web"\nmode = "enforce"\n',
        '[SeccompState]\nmode = "filter"\nprofile = "localhost/web.json"\n',
        '[[Probe]]\nname = "liveness"\n',
        "[[Port]]\ncontainer_port = 80\n",
        '[[Namespace]]\nkind = "uts"\nhost = true\n',
    ],
)
def test_what_the_standards_allow_breaks_no_check(more: str) -> None:
    assert violated(GOOD + more) == {}


def test_a_user_namespace_relaxes_what_kubernetes_relaxes_since_1_35_and_no_more() -> None:
    mapped = GOOD.replace("initial = true", "initial = false").replace("[RunAsNonRoot]\nvalue = true\n", "")
    mapped += "[Identity]\nuids = [0, 0, 0, 0]\n[RunAsNonRoot]\nvalue = false\n"
    unmasked = '[[Mask]]\npath = "/proc/sys"\nstate = "open"\ndeclared = "open"\n'

    assert violated(mapped) == {}
    assert violated(mapped + unmasked) == {"procMount_restricted": "restricted"}


def test_a_windows_pod_is_excused_from_what_linux_alone_has() -> None:
    text = GOOD.replace('namespace = "shop"', 'namespace = "shop"\nos = "windows"')
    text = text.replace('dropped = ["ALL"]', "dropped = []") + "[NoNewPrivs]\nvalue = false\n"

    assert violated(text) == {}


def test_each_control_has_conditions_and_a_fix() -> None:
    assert pod_security.CONDITIONS.keys() == pod_security.FIXES.keys()
