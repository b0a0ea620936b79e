"""What a file leaves to the engine or the image, and could say."""

from collections.abc import Iterator

from stockade.audit.facts import (
    CapabilityChange,
    HealthCheck,
    Identity,
    LsmLabel,
    Privileged,
    ReadOnlyRoot,
    RestartPolicy,
    RunAsNonRoot,
    SeccompState,
    Unset,
    UserNamespace,
    Workload,
)
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen

_PSS = "https://kubernetes.io/docs/concepts/security/pod-security-standards/"
_CONTEXT = "https://kubernetes.io/docs/tasks/configure-pod-container/security-context/"


def left(unset: tuple[Unset, ...] | None, subject: str) -> Unset | None:
    """Give the setting if the file leaves it to the engine."""
    return next((each for each in unset or () if each.subject == subject), None)


@rule(
    Severity.MEDIUM,
    _CONTEXT,
    "https://docs.docker.com/build/building/best-practices/#user",
    conditions=("PRV-ROOT", "IMG-ROOT"),
    covers=("low_user_id",),
    cis=("4.1", "K8S 5.2.7"),
    cwe=(250,),
)
def may_run_as_root(
    unset: tuple[Unset, ...], non_root: RunAsNonRoot | None, identity: Identity | None
) -> Iterator[Outcome]:
    """Nothing keeps the program from running as root.

    The file names no user, so the image does, and most images name none: then it is root. Root inside gets every
    capability that the engine leaves, and is the host's root where no user namespace maps it away.

    Severity: low where `runAsNonRoot` isn't known to apply, as in compose files; none where the kubelet refuses root.

    Fix: name a user (USER in the Dockerfile, user: in compose, runAsNonRoot: true and runAsUser in a pod).

    ```toml bad
    absent = ["Identity"]

    [[Unset]]
    subject = "user"
    ```

    ```toml good
    absent = ["Identity"]

    [RunAsNonRoot]
    value = true

    [[Unset]]
    subject = "user"
    ```
    """
    missing = left(unset, "user")
    if non_root is not None and non_root.value:
        return
    if missing is not None and (identity is None or identity.uids is None):
        where = missing.where if non_root is None or left(unset, "run_as_non_root") else non_root.where
        title = "no user is named, so the program may run as root"
        line = f"{where}: no user" + (" and no runAsNonRoot: true" if non_root is not None else "")
        yield Found(title, where, (line,), key="user")


@rule(Severity.MEDIUM, _CONTEXT, conditions=("PRV-GROUP", "PRV-ROOT"), attack=("T1611",), cwe=(250,))
def root_group(identity: Identity, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The program belongs to the group of root.

    Files of root that its group may write or read are open to it: in the image, on volumes, and on the host where the
    group isn't mapped away.

    Severity: low in a user namespace of its own.

    Fix: name a group other than 0 (runAsGroup, group_add, user: "1000:1000").

    ```toml bad
    [Identity]
    gids = [0, 0, 0, 0]
    host_gids = [0, 0, 0, 0]

    [UserNamespace]
    initial = true
    ```

    ```toml good
    [Identity]
    gids = [1000, 1000, 1000, 1000]
    host_gids = [1000, 1000, 1000, 1000]

    [UserNamespace]
    initial = true
    ```
    """
    if identity.uids is None or 0 in identity.uids:
        return
    mapped = userns is not None and not userns.initial
    first = identity.gids is not None and 0 in identity.gids
    if (first or (identity.groups is not None and 0 in identity.groups)) and not mapped:
        what = "its group" if first else "an additional group"
        line = seen(identity, f"{what} is 0")
        yield Found("the program belongs to the group of root", identity.where, (line,), key="group")


@rule(Severity.INFO, "https://avd.aquasec.com/misconfig/ksv020", conditions=("PRV-LOWUID",), cwe=(250,))
def low_user_id(
    identity: Identity | None, unset: tuple[Unset, ...], switch: Privileged | None, userns: UserNamespace | None
) -> Iterator[Outcome]:
    """The program's user id may be that of an account of the host.

    Accounts of a host have ids below 10000, those of the users from 1000 on. Two programs with one id can signal and
    trace each other and own each other's files wherever they meet.

    Fix: choose an id from 10000 on (runAsUser), or a user namespace.

    ```toml bad
    [Identity]
    uids = [1000, 1000, 1000, 1000]
    host_uids = "unknown"

    [UserNamespace]
    initial = true

    [Privileged]
    value = false
    ```

    ```toml good
    [Identity]
    uids = [10001, 10001, 10001, 10001]
    host_uids = "unknown"

    [UserNamespace]
    initial = true

    [Privileged]
    value = false
    ```
    """
    if switch is None or (userns is not None and not userns.initial):  # of what runs the host's account is known
        return
    if identity is not None and identity.host_uids is None and identity.uids is not None:
        if identity.uids[1] < 10000:
            title = f"the user id {identity.uids[1]} is below 10000"
            yield Found(title, identity.where, (seen(identity, f"uid {identity.uids[1]}"),), key="uid")
    elif identity is None and (missing := left(unset, "user")):
        title = "the user id is left to the image and may be below 10000"
        yield Found(title, missing.where, (f"{missing.where}: no user",), key="uid")


@rule(
    Severity.MEDIUM,
    "https://kubernetes.io/docs/tutorials/security/seccomp/",
    _PSS,
    conditions=("SEC-SECCOMP-ANY",),
    cis=("K8S 5.7.2",),
    attack=("T1611",),
    cwe=(693,),
)
def seccomp_left_to_engine(unset: tuple[Unset, ...], state: SeccompState | None) -> Iterator[Outcome]:
    """No system call filter is asked for.

    Kubernetes runs a container without a filter unless the pod names a profile or the kubelet was started with
    seccompDefault. A profile of the engine's denies some sixty calls that containers have no use for.

    Fix: set seccompProfile to RuntimeDefault, for the pod or each container.

    ```toml bad
    absent = ["SeccompState", "SeccompFilter"]

    [[Unset]]
    subject = "seccomp"
    ```

    ```toml good
    [[Unset]]
    subject = "apparmor"
    ```
    """
    missing = left(unset, "seccomp")
    if missing is not None and state is None:
        title = "no system call filter is asked for"
        yield Found(title, missing.where, (f"{missing.where}: no seccomp profile",), key="seccomp")


@rule(
    Severity.INFO,
    "https://hub.armosec.io/docs/c-0055",
    conditions=("SEC-HARDENING",),
    cis=("K8S 5.7.3",),
    cwe=(693,),
)
def no_hardening(
    workload: Workload,
    change: CapabilityChange | None,
    unset: tuple[Unset, ...] | None,
    state: SeccompState | None,
    labels: tuple[LsmLabel, ...] | None,
) -> Iterator[Outcome]:
    """Nothing narrows what the container may do.

    It names no system call filter, no AppArmor profile, no SELinux label and drops no capability: it has whatever the
    node gives by default.

    Fix: drop all capabilities and set seccompProfile: RuntimeDefault.

    ```toml bad
    absent = ["SeccompState", "SeccompFilter", "LsmLabel"]

    [Workload]
    kind = "Pod"
    name = "web"
    namespace = "shop"
    ```

    ```toml good
    [Workload]
    kind = "Pod"
    name = "web"
    namespace = "shop"
    ```
    """
    filtered = state is not None and state.mode != "disabled"
    confined = any(label.mode != "unconfined" for label in labels or ())
    dropped = change is not None and bool(change.dropped) and "ALL" not in change.added
    if not filtered and not confined and not dropped:
        missing = left(unset, "selinux") or left(unset, "seccomp")
        place = missing.where if missing else change.where if change else workload.where
        title = "no filter, security module or dropped capability narrows what the container may do"
        yield Found(title, place, (f"{place}: none of them is named",), key="hardening")


@rule(Severity.INFO, "https://docs.docker.com/reference/compose-file/services/#security_opt",
      conditions=("SEC-OPT",), cis=("5.2",), cwe=(693,))  # fmt: skip
def no_security_options(missing: Unset) -> Iterator[Outcome]:
    """A service sets no security option.

    no-new-privileges, an AppArmor profile or a system call filter of its own are set by security_opt.

    Fix: set at least no-new-privileges:true.

    ```toml bad
    [[Unset]]
    subject = "security_options"
    ```

    ```toml good
    [[Unset]]
    subject = "selinux"
    ```
    """
    if missing.subject == "security_options":
        yield Found("no security option is set", missing.where, (f"{missing.where}: no security_opt",), key="options")


@rule(Severity.INFO, _CONTEXT, conditions=("K8S-SECCTX",), cis=("K8S 5.7.3",), cwe=(693,))
def no_security_context(missing: Unset) -> Iterator[Outcome]:
    """A container has no security context, and neither has its pod.

    All of what a security context decides is left to defaults that were made for compatibility.

    Fix: add securityContext with runAsNonRoot, allowPrivilegeEscalation: false, dropped capabilities and a
    seccompProfile.

    ```toml bad
    [[Unset]]
    subject = "security_context"
    ```

    ```toml good
    [[Unset]]
    subject = "selinux"
    ```
    """
    if missing.subject == "security_context":
        title = "neither the container nor its pod has a security context"
        yield Found(title, missing.where, (f"{missing.where}: no securityContext",), key="context")


@rule(Severity.LOW, "https://www.cisecurity.org/benchmark/docker", _CONTEXT, conditions=("MNT-ROFS",),
      cis=("5.13",), cwe=(732,))  # fmt: skip
def writable_root_declared(root: ReadOnlyRoot) -> Iterator[Outcome]:
    """The container's root file system isn't declared read-only.

    An attacker changes the program itself and stays; what runs differs from the image.

    Fix: set read_only: true (readOnlyRootFilesystem: true) and mount a tmpfs or a volume where the program writes.

    ```toml bad
    [ReadOnlyRoot]
    value = false
    ```

    ```toml good
    [ReadOnlyRoot]
    value = true
    ```
    """
    if not root.value:
        title = "the container's root file system is writable"
        yield Found(title, root.where, (f"{root.where}: not declared read-only",))


@rule(Severity.INFO, "https://docs.docker.com/engine/containers/start-containers-automatically/",
      conditions=("RES-RESTART",), cis=("5.15",), cwe=(770,))  # fmt: skip
def unbounded_restart(policy: RestartPolicy) -> Iterator[Outcome]:
    """The engine restarts it without end.

    A program that fails at each start uses the processor for nothing, and one that an attacker crashes comes back for
    the next attempt.

    Fix: bound the attempts (restart: on-failure:5).

    ```toml bad
    [RestartPolicy]
    value = "always"
    ```

    ```toml good
    [RestartPolicy]
    value = "on-failure"
    limit = 5
    ```
    """
    endless = policy.value in {"always", "unless-stopped", "any"}
    many = policy.value == "on-failure" and (policy.limit is None or policy.limit > 5)
    if endless or many:
        times = "without end" if policy.limit is None or endless else f"{policy.limit} times"
        line = f"{policy.where}: restart {policy.value}" + (f":{policy.limit}" if policy.limit is not None else "")
        yield Found(f"the engine restarts it {times}", policy.where, (line,), key="restart")


@rule(Severity.INFO, "https://docs.docker.com/reference/dockerfile/#healthcheck", conditions=("IMG-HEALTH",),
      cis=("4.6", "5.27"), cwe=(693,))  # fmt: skip
def no_healthcheck(unset: tuple[Unset, ...], check: HealthCheck | None) -> Iterator[Outcome]:
    """Nothing tells whether the program still works.

    Without a health check the engine restarts only what ended, not what hangs.

    Fix: add HEALTHCHECK to the image or healthcheck: to the service.

    ```toml bad
    [[Unset]]
    subject = "healthcheck"
    ```

    ```toml good
    [[Unset]]
    subject = "restart"
    ```
    """
    missing = left(unset, "healthcheck")
    if check is not None and not check.present:
        yield Found("the health check is turned off", check.where, (f"{check.where}: turned off",), key="health")
    elif check is None and missing is not None:
        yield Found("no health check is set", missing.where, (f"{missing.where}: no health check",), key="health")
