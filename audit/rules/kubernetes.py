"""What only pods have: tokens, sysctls, probes, kinds of volumes, Windows, namespaces."""

from collections.abc import Iterator

from stockade.audit.facts import (
    HostProcess,
    Mount,
    PodSecurity,
    Probe,
    ServiceAccountToken,
    SysctlSetting,
    VolumeType,
    Workload,
)
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen

_PSS = "https://kubernetes.io/docs/concepts/security/pod-security-standards/"

#: what a pod may set without harm to others: pod-security-admission policy/check_sysctls.go at 1.35
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
    }
)  # fmt: skip
#: kinds of volumes that the restricted standard takes: policy/check_restrictedVolumes.go at 1.35
RESTRICTED_VOLUMES = frozenset(
    {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
        "secret",
    }
)  # fmt: skip


@rule(
    Severity.MEDIUM,
    "https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/",
    conditions=("K8S-SATOKEN",),
    cis=("K8S 5.1.6",),
    attack=("T1528",),
    cwe=(522,),
)
def service_account_token(token: ServiceAccountToken) -> Iterator[Outcome]:
    """A token for the Kubernetes API is mounted.

    Whoever takes the container over speaks to the API with the rights of its service account, which often reach
    further than the program needs.

    Severity: low where nobody asked for it and Kubernetes mounts it by default.

    Fix: set automountServiceAccountToken: false unless the program talks to the API.

    ```toml bad
    [ServiceAccountToken]
    mounted = true
    ```

    ```toml good
    [ServiceAccountToken]
    mounted = false
    ```
    """
    if token.mounted:
        title = "a token for the Kubernetes API is mounted" + ("" if token.declared else " by default")
        severity = None if token.declared else Severity.LOW
        yield Found(title, token.where, (f"{token.where}: automountServiceAccountToken isn't false",), severity)


@rule(
    Severity.HIGH,
    "https://kubernetes.io/docs/tasks/configure-pod-container/create-hostprocess-pod/",
    _PSS,
    conditions=("K8S-WINHOST",),
    cis=("K8S 5.2.11",),
    attack=("T1611",),
    cwe=(250,),
)
def host_process(switch: HostProcess) -> Iterator[Outcome]:
    """It is a Windows HostProcess container.

    It runs on the node itself, with the node's network and files and the rights of a user of the node, up to SYSTEM.

    Fix: leave hostProcess out; what must run on each node belongs into a service of the node.

    ```toml bad
    [HostProcess]
    value = true
    ```

    ```toml good
    [HostProcess]
    value = false
    ```
    """
    if switch.value:
        yield Found("it is a Windows HostProcess container", switch.where, (seen(switch, "hostProcess: true"),))


@rule(
    Severity.MEDIUM,
    "https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/",
    _PSS,
    conditions=("K8S-SYSCTL",),
    attack=("T1499",),
    cwe=(284,),
)
def unsafe_sysctl(setting: SysctlSetting) -> Iterator[Outcome]:
    """A kernel setting is changed that isn't known to be safe.

    It may take resources from other containers, or reach past the container's own namespaces.

    Severity: low for settings that belong to the container's own network or IPC namespace.

    Fix: leave it out, or set it on the node for all.

    ```toml bad
    [[SysctlSetting]]
    name = "kernel.msgmax"
    value = "65536"
    ```

    ```toml good
    [[SysctlSetting]]
    name = "net.ipv4.tcp_syncookies"
    value = "1"
    ```
    """
    if setting.name not in SAFE_SYSCTLS:
        own = setting.name.startswith(("net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."))
        line = seen(setting, f"{setting.name} = {setting.value}")
        severity = Severity.LOW if own else None
        title = f"the kernel setting {setting.name} isn't among the safe ones"
        yield Found(title, setting.where, (line,), severity, key=setting.name)


@rule(Severity.LOW, _PSS, conditions=("K8S-HOSTPROBE",), attack=("T1090",), cwe=(918,))
def probe_host(probe: Probe) -> Iterator[Outcome]:
    """A probe names a host.

    The kubelet makes the request from the node's network: whoever writes the pod sends it to services that trust the
    node, such as its loopback address or the cloud's metadata.

    Fix: leave host out, the pod's own address is meant; set a Host header in httpHeaders.

    ```toml bad
    [[Probe]]
    name = "livenessProbe"
    host = "127.0.0.1"
    ```

    ```toml good
    [[Probe]]
    name = "livenessProbe"
    ```
    """
    if probe.host:
        title = f"{probe.name} sends the kubelet to {probe.host}"
        yield Found(title, probe.where, (seen(probe, f"host: {probe.host}"),), key=f"{probe.name} {probe.host}")


@rule(Severity.LOW, "https://kubernetes.io/docs/concepts/storage/volumes/", _PSS, conditions=("K8S-VOLTYPE",),
      cwe=(284,))  # fmt: skip
def volume_type(volume: VolumeType) -> Iterator[Outcome]:
    """A volume is of a kind that pods shouldn't name themselves.

    Whoever writes the pod chooses server, path and credentials of the storage, past what the cluster's administrator
    offers by storage classes and claims.

    Fix: use a persistentVolumeClaim, or one of the kinds without a back end of its own.

    ```toml bad
    [[VolumeType]]
    name = "data"
    kind = "nfs"
    ```

    ```toml good
    [[VolumeType]]
    name = "data"
    kind = "persistentVolumeClaim"
    ```
    """
    if volume.kind not in RESTRICTED_VOLUMES and volume.kind not in {"hostPath", ""}:
        title = f"the volume {volume.name} is of kind {volume.kind}"
        yield Found(title, volume.where, (seen(volume, f"{volume.kind} volume"),), key=volume.name)


@rule(
    Severity.INFO,
    "https://github.com/kubernetes/kubernetes/issues/104980",
    conditions=("MNT-SUBPATH",),
    attack=("T1611",),
    cwe=(59,),
    cve=("CVE-2021-25741",),
)
def mounted_subpath(mount: Mount) -> Iterator[Outcome]:
    """A part of a writable volume is mounted.

    The kubelet resolves the path in the volume that the container can fill with links; a won race against it has
    mounted paths of the node (CVE-2021-25741, fixed in 1.22.2).

    Severity: none where the volume is mounted read-only.

    Fix: mount the whole volume, or read-only.

    ```toml bad
    [[Mount]]
    destination = "/data"
    writable = true
    options = ["rw"]
    subpath = "tenant"
    ```

    ```toml good
    [[Mount]]
    destination = "/data"
    writable = false
    options = ["ro"]
    subpath = "tenant"
    ```
    """
    if mount.subpath and mount.writable:
        title = f"the part {mount.subpath} of a writable volume is mounted at {mount.destination}"
        yield Found(title, mount.where, (seen(mount, f"subPath {mount.subpath}"),), key=mount.destination)


@rule(Severity.INFO, "https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/",
      conditions=("K8S-DEFAULTNS",), cis=("K8S 5.7.4",), cwe=(653,))  # fmt: skip
def default_namespace(workload: Workload) -> Iterator[Outcome]:
    """A workload names no namespace or the default one.

    What is put into the namespace default shares its quotas, network policies and roles with everything else there.

    Fix: name a namespace made for the application.

    ```toml bad
    [Workload]
    kind = "Pod"
    name = "web"
    namespace = "default"
    ```

    ```toml good
    [Workload]
    kind = "Pod"
    name = "web"
    namespace = "shop"
    ```
    """
    if workload.namespace in {None, "", "default"}:
        named = f"namespace: {workload.namespace}" if workload.namespace else "no namespace"
        title = f"{workload.kind} {workload.name} lies in the default namespace"
        yield Found(title, workload.where, (f"{workload.where}: {named}",))


@rule(Severity.INFO, "https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/",
      conditions=("K8S-EPHEMERAL",), attack=("T1609",), cwe=(489,))  # fmt: skip
def ephemeral_container(workload: Workload) -> Iterator[Outcome]:
    """A container for debugging is part of the pod.

    An ephemeral container can't be taken out of a pod again, has no limits of its own, and is often given more rights
    than the program that it looks at.

    Fix: end the pod after debugging; let a controller start it anew.

    ```toml bad
    [Workload]
    kind = "Pod"
    name = "web"
    namespace = "shop"
    role = "ephemeral"
    ```

    ```toml good
    [Workload]
    kind = "Pod"
    name = "web"
    namespace = "shop"
    role = "container"
    ```
    """
    if workload.role == "ephemeral":
        yield Found("it is a container for debugging", workload.where, (seen(workload, "ephemeral container"),))


@rule(
    Severity.LOW,
    "https://kubernetes.io/docs/concepts/security/pod-security-admission/",
    conditions=("K8S-PSA",),
    cis=("K8S 5.2.1",),
    cwe=(284,),
)
def pod_security_label(label: PodSecurity) -> Iterator[Outcome]:
    """A namespace lets every pod in.

    Without the label pod-security.kubernetes.io/enforce, or with "privileged", whoever may create pods in the namespace
    has the rights of host root on the node.

    Fix: set pod-security.kubernetes.io/enforce to baseline or restricted.

    ```toml bad
    [PodSecurity]
    enforce = "privileged"
    ```

    ```toml good
    [PodSecurity]
    enforce = "restricted"
    ```
    """
    if label.enforce not in {"baseline", "restricted"}:
        line = f"{label.where}: enforce: {label.enforce}" if label.enforce else f"{label.where}: no enforce label"
        yield Found("the namespace lets every pod in", label.where, (line,))
