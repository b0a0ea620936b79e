"""The Pod Security Standards, baseline and restricted, as Kubernetes 1.35 checks them.

Source: k8s.io/pod-security-admission, policy/check_*.go at release 1.35, whose names the controls have. Where that
differs from the published page (the kinds of volumes, sysctls, user namespaces) the code counts. Containers, init,
sidecar and ephemeral containers are treated alike; what a pod sets is judged where a container inherits it.
"""

from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.facts import Target, Where
from stockade.audit.redact import clean
from stockade.audit.report import Level, PodStandards, Violation
from stockade.audit.rules.kubernetes import RESTRICTED_VOLUMES, SAFE_SYSCTLS
from stockade.audit.rules.seccomp import SELINUX_TYPES

#: policy/check_capabilities_baseline.go; docker's list without NET_RAW
BASELINE_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
_HOST_NAMESPACES = {"pid": "hostPID", "net": "hostNetwork", "ipc": "hostIPC"}

#: control → its conditions in the catalogue
CONDITIONS: dict[str, tuple[str, ...]] = {
    "windowsHostProcess": ("K8S-WINHOST",),
    "hostNamespaces": ("NS-PID", "NS-NET", "NS-IPC"),
    "privileged": ("PRV-PRIVILEGED",),
    "capabilities_baseline": ("CAP-ADD",),
    "hostPathVolumes": ("MNT-HOSTPATH",),
    "hostPorts": ("NET-HOSTPORT",),
    "hostProbesAndHostLifecycle": ("K8S-HOSTPROBE",),
    "appArmorProfile": ("SEC-AA",),
    "seLinuxOptions": ("SEC-SEL",),
    "procMount": ("PROC-UNMASK",),
    "seccompProfile_baseline": ("SEC-SECCOMP",),
    "sysctls": ("K8S-SYSCTL",),
    "restrictedVolumes": ("K8S-VOLTYPE",),
    "allowPrivilegeEscalation": ("PRV-NNP",),
    "runAsNonRoot": ("PRV-ROOT",),
    "runAsUser": ("PRV-UID0",),
    "seccompProfile_restricted": ("SEC-SECCOMP-ANY",),
    "capabilities_restricted": ("CAP-DROP", "CAP-ADD-ANY"),
    "procMount_restricted": ("PROC-UNMASK",),
}


#: control → what to do
FIXES: dict[str, str] = {
    "windowsHostProcess": "leave windowsOptions.hostProcess out",
    "hostNamespaces": "leave hostPID, hostNetwork and hostIPC out",
    "privileged": "leave privileged out",
    "capabilities_baseline": "add none but those of the standard's list",
    "hostPathVolumes": "use another kind of volume, such as a persistentVolumeClaim",
    "hostPorts": "leave hostPort out and use a Service",
    "hostProbesAndHostLifecycle": "leave host out of probes and lifecycle handlers",
    "appArmorProfile": "name RuntimeDefault or a Localhost profile, or none",
    "seLinuxOptions": "leave user and role out, and type or use one of the container types",
    "procMount": "leave procMount out, or set hostUsers: false",
    "seccompProfile_baseline": "name RuntimeDefault or a Localhost profile, or none",
    "sysctls": "set none but the safe sysctls",
    "restrictedVolumes": "use a kind without a back end of its own, or a persistentVolumeClaim",
    "allowPrivilegeEscalation": "set allowPrivilegeEscalation: false",
    "runAsNonRoot": "set runAsNonRoot: true, for the pod or each container",
    "runAsUser": "set runAsUser to another id than 0",
    "seccompProfile_restricted": "set seccompProfile.type to RuntimeDefault or Localhost",
    "capabilities_restricted": "set capabilities.drop to [ALL] and add NET_BIND_SERVICE at most",
    "procMount_restricted": "leave procMount out",
}


def of(target: Target) -> PodStandards | None:
    """Give what the standards say of a container of a pod; None for everything else."""
    workload = target.one(facts.Workload)
    if workload is None:
        return None
    pod = f"{workload.where.path}:{workload.kind}/{workload.namespace or '-'}/{workload.name}"
    windows = (workload.os or "").lower() == "windows"
    found = [*_host(target), *_switches(target), *_settings(target)]
    found += [*_restricted(target), *(() if windows else _restricted_on_linux(target))]
    return PodStandards(clean(pod), tuple(dict.fromkeys(found)))


def _no(level: Level, control: str, where: Where, title: str) -> Violation:
    return Violation(level, control, clean(title), Where(clean(where.path), where.line, where.column))


def _host(target: Target) -> Iterator[Violation]:
    process = target.one(facts.HostProcess)
    if process is not None and process.value:
        yield _no("baseline", "windowsHostProcess", process.where, "windowsOptions.hostProcess is true")
    for namespace in target.all(facts.Namespace):
        if namespace.host and namespace.kind in _HOST_NAMESPACES:
            yield _no("baseline", "hostNamespaces", namespace.where, f"{_HOST_NAMESPACES[namespace.kind]} is true")
    for volume in target.all(facts.VolumeType):
        if volume.kind == "hostPath":
            yield _no("baseline", "hostPathVolumes", volume.where, f"the volume {volume.name} is a hostPath")
    for port in target.all(facts.Port):
        if port.host_port:
            yield _no("baseline", "hostPorts", port.where, f"hostPort {port.host_port} is taken")
    for probe in target.all(facts.Probe):
        if probe.host:
            control = "hostProbesAndHostLifecycle"
            yield _no("baseline", control, probe.where, f"{probe.name} names the host {probe.host}")


def _switches(target: Target) -> Iterator[Violation]:
    switch = target.one(facts.Privileged)
    if switch is not None and switch.value:
        yield _no("baseline", "privileged", switch.where, "privileged is true")
        return  # what follows from the switch isn't asked for by the pod
    state = target.one(facts.SeccompState)
    if state is not None and state.mode == "disabled":
        yield _no("baseline", "seccompProfile_baseline", state.where, "seccompProfile.type is Unconfined")
    userns = target.one(facts.UserNamespace)
    for mask in target.all(facts.Mask):
        if mask.path == "/proc/sys" and mask.declared == "open":
            # since 1.35 baseline lets pods with hostUsers: false have it, restricted doesn't
            own = userns is not None and not userns.initial
            level: Level = "restricted" if own else "baseline"
            control = "procMount_restricted" if own else "procMount"
            yield _no(level, control, mask.where, "procMount isn't Default")


def _settings(target: Target) -> Iterator[Violation]:
    change = target.one(facts.CapabilityChange)
    beyond = [name for name in change.added if name not in BASELINE_CAPABILITIES] if change is not None else []
    if change is not None and beyond:
        title = f"capabilities.add has {', '.join(dict.fromkeys(beyond))}"
        yield _no("baseline", "capabilities_baseline", change.where, title)
    for label in target.all(facts.LsmLabel):
        if label.module == "apparmor" and label.mode == "unconfined":
            yield _no("baseline", "appArmorProfile", label.where, f"the AppArmor profile is {label.label}")
        elif label.module == "selinux":
            user, role, kind = (*label.label.split(":"), "", "", "")[:3]
            if user or role or kind not in SELINUX_TYPES:
                yield _no("baseline", "seLinuxOptions", label.where, f"seLinuxOptions are {label.label}")
    for setting in target.all(facts.SysctlSetting):
        if setting.name not in SAFE_SYSCTLS:
            yield _no("baseline", "sysctls", setting.where, f"the sysctl {setting.name} isn't a safe one")


def _restricted(target: Target) -> Iterator[Violation]:
    for volume in target.all(facts.VolumeType):
        if volume.kind not in RESTRICTED_VOLUMES and volume.kind != "hostPath":
            title = f"the volume {volume.name} is of kind {volume.kind}"
            yield _no("restricted", "restrictedVolumes", volume.where, title)
    userns = target.one(facts.UserNamespace)
    if userns is not None and not userns.initial:  # since 1.35: root inside is nobody outside
        return
    non_root = target.one(facts.RunAsNonRoot)
    if non_root is not None and not non_root.value:
        yield _no("restricted", "runAsNonRoot", non_root.where, "runAsNonRoot isn't true")
    identity = target.one(facts.Identity)
    if identity is not None and identity.uids is not None and identity.uids[1] == 0:
        yield _no("restricted", "runAsUser", identity.where, "runAsUser is 0")


def _restricted_on_linux(target: Target) -> Iterator[Violation]:
    no_new_privs = target.one(facts.NoNewPrivs)
    if no_new_privs is not None and not no_new_privs.value:
        title = "allowPrivilegeEscalation isn't false"
        yield _no("restricted", "allowPrivilegeEscalation", no_new_privs.where, title)
    missing = next((each for each in target.all(facts.Unset) if each.subject == "seccomp"), None)
    if missing is not None:
        title = "seccompProfile isn't RuntimeDefault or Localhost"
        yield _no("restricted", "seccompProfile_restricted", missing.where, title)
    change = target.one(facts.CapabilityChange)
    if change is None:
        return
    if "ALL" not in change.dropped:
        where = change.drop_where or change.where
        yield _no("restricted", "capabilities_restricted", where, "capabilities.drop doesn't have ALL")
    more = [name for name in change.added if name in BASELINE_CAPABILITIES - {"NET_BIND_SERVICE"}]
    if more:
        title = f"capabilities.add has {', '.join(dict.fromkeys(more))}"
        yield _no("restricted", "capabilities_restricted", change.where, title)
