"""What pods and containers declare of ids, privileges and confinement, and which of the two decides."""

from __future__ import annotations

import pytest

from stockade.audit.engine import evaluate
from stockade.audit.facts import (
    CapabilityChange,
    CapabilitySets,
    HostProcess,
    Identity,
    LsmLabel,
    Mask,
    Namespace,
    NoNewPrivs,
    Privileged,
    ReadOnlyRoot,
    RunAsNonRoot,
    SeccompState,
    ServiceAccountToken,
    SysctlSetting,
    Unset,
    UserNamespace,
)
from stockade.sandbox.linux import capabilities as caps
from tests.audit.static.kubernetes_help import app, only, place, pod, read, wrong


def unset(target: object) -> set[str]:
    return {each.subject for each in target.all(Unset)}  # type: ignore[attr-defined] # the stubs leave it out


def test_a_pod_that_asks_for_nothing_is_told_with_the_api_s_defaults() -> None:
    target = app()

    assert not only(target, Privileged).value
    assert not only(target, NoNewPrivs).value
    assert not only(target, ReadOnlyRoot).value
    assert not only(target, HostProcess).value
    assert only(target, UserNamespace).initial
    assert target.one(Identity) is None
    assert target.one(SeccompState) is None
    gap = target.gap(SeccompState)
    assert gap is not None
    assert gap.reason == "it depends on the kubelet's seccompDefault"
    assert {"user", "run_as_non_root", "seccomp", "apparmor", "selinux", "no_new_privs", "capabilities"} <= unset(
        target
    )


def test_an_absent_field_has_the_place_of_what_would_hold_it() -> None:
    assert place(app(), NoNewPrivs) == (7, 5)
    assert place(app(container="securityContext:\n  runAsUser: 1"), NoNewPrivs) == (10, 7)
    assert place(app(container="securityContext:\n  runAsUser: 1\n  allowPrivilegeEscalation: false"), NoNewPrivs) == (
        11,
        7,
    )


@pytest.mark.parametrize(
    ("spec", "container", "uid", "line"),
    [
        ("securityContext: {runAsUser: 1000}", "", 1000, 6),
        ("securityContext: {runAsUser: 1000}", "securityContext: {runAsUser: 0}", 0, 10),
        ("securityContext: {runAsUser: 1000}", "securityContext: {runAsUser: null}", 1000, 6),
        ("", "securityContext: {runAsUser: 5}", 5, 9),
    ],
)
def test_the_container_s_user_wins_over_the_pod_s(spec: str, container: str, uid: int, line: int) -> None:
    target = app(spec, container)

    assert only(target, Identity).uids == (uid,) * 4
    assert only(target, Identity).where.line == line


def test_a_container_can_take_back_that_the_pod_refuses_root() -> None:
    refuses = app("securityContext: {runAsNonRoot: true}")
    takes_back = app("securityContext: {runAsNonRoot: true}", "securityContext: {runAsNonRoot: false}")

    assert only(refuses, RunAsNonRoot).value
    assert not only(takes_back, RunAsNonRoot).value


def test_the_groups_are_those_of_the_pod() -> None:
    target = app("securityContext: {runAsGroup: 0, supplementalGroups: [998, 6], fsGroup: 2000}")

    assert only(target, Identity).gids == (0,) * 4
    assert only(target, Identity).groups == (998, 6, 2000)


@pytest.mark.parametrize(
    "field",
    [
        "privileged: true",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "procMount: Unmasked",
        "capabilities: {add: [SYS_ADMIN]}",
    ],
)
def test_a_field_that_only_containers_have_means_nothing_in_a_pod(field: str) -> None:
    target = app(f"securityContext: {{{field}}}")

    assert not only(target, Privileged).value
    assert not only(target, NoNewPrivs).value
    assert not only(target, ReadOnlyRoot).value
    assert all(mask.state != "open" for mask in target.all(Mask))
    assert only(target, CapabilityChange).added == ()


def test_privileged_brings_everything_and_drops_every_confinement() -> None:
    target = app(
        "securityContext: {seccompProfile: {type: RuntimeDefault}}",
        "securityContext: {privileged: true, capabilities: {drop: [ALL]}}",
    )

    assert only(target, CapabilitySets).bounding == caps.ALL
    assert only(target, SeccompState).mode == "disabled"
    assert {mask.state for mask in target.all(Mask)} == {"open"}


def test_capabilities_are_known_in_any_spelling() -> None:
    target = app(container="securityContext: {capabilities: {add: [cap_net_admin, Sys_Time], drop: [all]}}")

    assert only(target, CapabilitySets).bounding == caps.mask(["NET_ADMIN", "SYS_TIME"])
    assert only(target, CapabilityChange).added == ("NET_ADMIN", "SYS_TIME")
    assert only(target, CapabilityChange).dropped == ("ALL",)


def test_another_user_than_root_holds_no_capability_at_once() -> None:
    target = app(container="securityContext: {runAsUser: 1000, capabilities: {add: [NET_ADMIN]}}")

    assert only(target, CapabilitySets).effective == 0
    assert only(target, CapabilitySets).bounding & caps.mask(["NET_ADMIN"])


_SECCOMP = "seccomp.security.alpha.kubernetes.io/"


@pytest.mark.parametrize(
    ("spec", "container", "annotations", "profile"),
    [
        ("seccompProfile: {type: RuntimeDefault}", "", "", "default"),
        ("seccompProfile: {type: Localhost, localhostProfile: web.json}", "", "", "localhost/web.json"),
        ("seccompProfile: {type: RuntimeDefault}", "seccompProfile: {type: Unconfined}", "", "unconfined"),
        ("seccompProfile: {type: Unconfined}", "seccompProfile: {type: RuntimeDefault}", "", "default"),
        ("", "", f"{_SECCOMP}pod: docker/default", "default"),
        ("", "", f"{_SECCOMP}pod: localhost/web.json", "localhost/web.json"),
        (
            "",
            "",
            (
                "seccomp.security.alpha.kubernetes.io/pod: runtime/default\n"
                "container.seccomp.security.alpha.kubernetes.io/app: unconfined"
            ),
            "unconfined",
        ),
        (
            "seccompProfile: {type: RuntimeDefault}",
            "",
            f"{_SECCOMP}pod: unconfined",
            "default",
        ),
    ],
)
def test_the_nearest_seccomp_profile_decides(spec: str, container: str, annotations: str, profile: str) -> None:
    target = app(f"securityContext: {{{spec}}}", f"securityContext: {{{container}}}", annotations)

    assert only(target, SeccompState).profile == profile
    assert only(target, SeccompState).mode == ("disabled" if profile == "unconfined" else "filter")


def test_an_annotation_for_another_container_confines_nothing() -> None:
    target = app(
        annotations="container.apparmor.security.beta.kubernetes.io/db: runtime/default\n"
        "container.seccomp.security.alpha.kubernetes.io/db: runtime/default"
    )

    assert {"apparmor", "seccomp"} <= unset(target)


_APPARMOR = "container.apparmor.security.beta.kubernetes.io/app"


@pytest.mark.parametrize(
    ("spec", "container", "annotations", "mode"),
    [
        ("", "", f"{_APPARMOR}: unconfined", "unconfined"),
        ("", "", f"{_APPARMOR}: localhost/web", "enforce"),
        ("appArmorProfile: {type: Unconfined}", "", "", "unconfined"),
        ("appArmorProfile: {type: Unconfined}", "appArmorProfile: {type: RuntimeDefault}", "", "enforce"),
        ("appArmorProfile: {type: Unconfined}", "", f"{_APPARMOR}: runtime/default", "enforce"),
        ("", "appArmorProfile: {type: RuntimeDefault}", f"{_APPARMOR}: unconfined", "enforce"),
    ],
)
def test_the_nearest_apparmor_profile_decides(spec: str, container: str, annotations: str, mode: str) -> None:
    target = app(f"securityContext: {{{spec}}}", f"securityContext: {{{container}}}", annotations)

    assert only(target, LsmLabel).module == "apparmor"
    assert only(target, LsmLabel).mode == mode


def test_an_annotation_that_names_no_profile_is_told() -> None:
    assert "runtime/default or localhost/NAME" in wrong(pod(annotations=f"{_APPARMOR}: strict"))[0]


def test_selinux_options_give_the_label_as_far_as_it_is_set() -> None:
    target = app("securityContext: {seLinuxOptions: {type: spc_t, level: 's0:c1,c2'}}")

    assert only(target, LsmLabel).label == "::spc_t:s0:c1,c2"
    assert "selinux" in unset(app(container="securityContext: {seLinuxOptions: null}"))


@pytest.mark.parametrize("value", ["Unmasked", "Other"])
def test_unmasked_proc_is_open(value: str) -> None:
    masked = app(container="securityContext: {procMount: Default}")

    assert "open" not in {mask.state for mask in masked.all(Mask)}
    if value == "Unmasked":
        assert {mask.state for mask in app(container="securityContext: {procMount: Unmasked}").all(Mask)} == {"open"}
    else:
        assert "Default or Unmasked" in wrong(pod(container="securityContext: {procMount: Other}"))[0]


@pytest.mark.parametrize(
    ("spec", "host"),
    [
        ("hostPID: true", {"pid"}),
        ("hostIPC: true", {"ipc"}),
        ("hostNetwork: true", {"net", "uts"}),
        ("hostNetwork: false", set()),
    ],
)
def test_a_switch_of_the_pod_puts_its_containers_into_the_host_s_namespace(spec: str, host: set[str]) -> None:
    target = app(spec)

    assert {space.kind for space in target.all(Namespace) if space.host} == host | {"user"}
    assert {str(space.where) for space in target.all(Namespace) if space.kind in host} <= {"pod.yaml:6:3"}


def test_a_user_namespace_leaves_host_root_out() -> None:
    target = app("hostUsers: false", "securityContext: {runAsUser: 0}")
    space = only(target, UserNamespace)

    assert not space.initial
    assert space.uid_map is not None
    assert all(each.host > 65535 for each in space.uid_map)


def test_containers_that_share_processes_name_each_other() -> None:
    found = read(
        """
        apiVersion: v1
        kind: Pod
        metadata: {name: web}
        spec: {shareProcessNamespace: true, containers: [{name: app}, {name: proxy}]}
        """
    )

    (space,) = [each for each in found["Pod/web:app"].all(Namespace) if each.kind == "pid"]
    assert space.shared_with == ("pod.yaml:Pod/web:proxy",)


@pytest.mark.parametrize(
    ("spec", "container", "value"),
    [
        ("windowsOptions: {hostProcess: true}", "", True),
        ("windowsOptions: {hostProcess: true}", "windowsOptions: {hostProcess: false}", False),
        ("", "windowsOptions: {hostProcess: true}", True),
        ("windowsOptions: {runAsUserName: web}", "", False),
    ],
)
def test_windows_host_processes_are_seen_in_pod_and_container(spec: str, container: str, value: bool) -> None:  # noqa: FBT001
    target = app(f"securityContext: {{{spec}}}", f"securityContext: {{{container}}}")

    assert only(target, HostProcess).value is value


def test_a_windows_container_is_not_asked_for_what_only_linux_has() -> None:
    target = app("os: {name: windows}", "securityContext: {windowsOptions: {hostProcess: true}}")
    judged = evaluate(target)

    assert only(target, HostProcess).value
    assert target.one(NoNewPrivs) is None
    assert {"host_process"} <= {finding.rule for finding in judged.findings}
    assert not {"new_privileges", "usual_capabilities"} & {finding.rule for finding in judged.findings}


def test_kernel_settings_are_named_with_dots() -> None:
    target = app("securityContext: {sysctls: [{name: net/core/somaxconn, value: '1024'}, {name: kernel.shmmax}]}")

    assert [(each.name, each.value) for each in target.all(SysctlSetting)] == [
        ("net.core.somaxconn", "1024"),
        ("kernel.shmmax", ""),
    ]


ACCOUNT = "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}}}, automountServiceAccountToken: {value}}}"


@pytest.mark.parametrize(
    ("spec", "account", "mounted"),
    [
        ("automountServiceAccountToken: false", "", False),
        ("automountServiceAccountToken: true\nserviceAccountName: a", "false", True),
        ("automountServiceAccountToken: false\nserviceAccountName: a", "true", False),
        ("serviceAccountName: a", "false", False),
        ("serviceAccountName: a", "null", True),
        ("serviceAccount: a", "true", True),
        ("serviceAccountName: b", "false", None),
        ("", "", None),
    ],
)
def test_the_pod_decides_over_its_account_about_the_token(spec: str, account: str, mounted: bool | None) -> None:  # noqa: FBT001
    text = pod(spec) + (f"\n---\n{ACCOUNT.format(name='a', value=account)}" if account else "")
    target = read(text)["Pod/web:app"]
    fact = target.one(ServiceAccountToken)

    assert (fact.mounted if fact else None) is mounted
    assert mounted is not None or "isn't in these files" in str(target.gap(ServiceAccountToken))


_AT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.mark.parametrize(
    ("volume", "path", "mounted"),
    [
        ("projected: {sources: [{serviceAccountToken: {path: token}}, {configMap: {name: ca}}]}", _AT, True),
        ("projected: {sources: [{serviceAccountToken: {path: token}}]}", "/token", True),
        ("projected: {sources: [{serviceAccountToken: {path: token, audience: vault}}]}", "/token", None),
        ("secret: {secretName: default-token-abc}", _AT, True),
        ("emptyDir: {}", _AT, False),
    ],
)
def test_a_token_is_seen_where_it_is_mounted_by_name(volume: str, path: str, mounted: bool | None) -> None:  # noqa: FBT001
    target = app(f"volumes: [{{name: a, {volume}}}]", f"volumeMounts: [{{name: a, mountPath: {path}}}]")
    fact = target.one(ServiceAccountToken)

    assert (fact.mounted if fact else None) is mounted
