"""The cause of an errno at a step of the set-up, and what helps: the patterns of real machines. Only for failures."""

from __future__ import annotations

import errno

from stockade.sandbox.linux import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.host import Host

_DENIED = (errno.EPERM, errno.EACCES)

NESTED = (
    "the kernel mounts a new {0} in a user namespace only where the caller sees a whole one, and this caller is in a "
    "container that masks parts of it: start the outer container with all of {0} visible (docker run --security-opt "
    "systempaths=unconfined, podman run --security-opt unmask=ALL, Kubernetes procMount: Unmasked){1}"
)
APPARMOR = (
    "AppArmor takes the capabilities from programs that make user namespaces "
    "(kernel.apparmor_restrict_unprivileged_userns is 1, as on Ubuntu since 23.10): give the program "
    "a profile with 'userns,' in /etc/apparmor.d, or as root: sysctl "
    "kernel.apparmor_restrict_unprivileged_userns=0"
)
SECCOMP = (
    "a seccomp filter on the caller refuses it, as container engines' default filters do: start the "
    "outer container with "
    "--security-opt seccomp=unconfined, or with a profile that allows clone, unshare, setns, mount and pivot_root"
)


def explain(step: str, error: int, host: Host) -> str:
    """Give cause and remedy of `error` (an errno) at `step`; empty where nothing more is known than the errno says.

    Steps: "user namespace", "clone", "unshare", "id maps", "newuidmap", "propagation", "ids", "mount TYPE", "idmap",
    "cgroup", "rootfs", "exec". Looks at the host for what the errno leaves open.
    """
    if step.startswith("mount "):
        return _mount(step[6:], error, host)
    known = {
        "user namespace": _user_namespace,
        "clone": _clone,
        "unshare": _clone,
        "id maps": _id_maps,
        "newuidmap": _newuidmap,
        "propagation": _first_mount,
        "ids": _ids,
        "idmap": _idmap,
        "cgroup": _cgroup,
        "rootfs": _rootfs,
        "exec": _exec,
    }.get(step)
    return known(error, host) if known else ""


def _user_namespace(error: int, host: Host) -> str:
    if host.no_userns and error in (*_DENIED, errno.ENOSPC, errno.EINVAL):
        return f"{host.no_userns}: {_switch_on(host)}"
    if error == errno.ENOSPC:
        return (
            "the limit of user namespaces is reached (user.max_user_namespaces): as root, sysctl "
            "user.max_user_namespaces=15000"
        )
    if error == errno.EUSERS:
        return "user namespaces are nested 32 deep, which is the kernel's limit: start it from further outside"
    if error == errno.EINVAL:
        return (
            "this kernel was built without one of the namespaces: it needs CONFIG_USER_NS, "
            "CONFIG_PID_NS, CONFIG_NET_NS …"
        )
    if error in _DENIED:
        # The kernel itself denies it only in a chroot and without a mapping of the own ids, clone(2) EPERM.
        if host.apparmor_restricts_userns and not host.holds("CAP_SYS_ADMIN"):
            return APPARMOR
        if host.seccomp:
            return SECCOMP
        if _in_chroot():
            return "the caller is in a chroot, where the kernel makes no user namespaces: start it outside"
        return "a security module or a setting forbids user namespaces: see dmesg, and sysctl -a | grep userns"
    return _clone(error, host)


def _switch_on(host: Host) -> str:
    if "max_user_namespaces" in host.no_userns:
        return "as root: sysctl user.max_user_namespaces=15000"
    if "clone" in host.no_userns:
        return "as root: sysctl kernel.unprivileged_userns_clone=1"
    return "use a kernel that has them, or --userns host as root"


def _in_chroot() -> bool:
    """Tell whether our root is no mount point, which is what current_chrooted() of the kernel means."""
    try:
        mounts = procfs.read_text("self", "mountinfo")
    except OSError:
        return False
    return not any(line.split(" ", 5)[4:5] == ["/"] for line in mounts.split("\n"))


def _clone(error: int, host: Host) -> str:
    if error == errno.EAGAIN:
        return "the limit of processes is reached: raise ulimit -u, or pids.max of the caller's cgroup"
    if error == errno.ENOMEM:
        return "the kernel has no memory left for a process, or the caller's pid namespace is dying"
    if error == errno.ENOSPC:
        return "a limit of namespaces is reached: see /proc/sys/user/max_*_namespaces"
    if error == errno.ENOSYS:
        return SECCOMP if host.seccomp else "clone3(2) is needed: use Linux 5.7 or later"
    if error in _DENIED:
        if host.apparmor_restricts_userns and not host.privileged:
            return APPARMOR
        if host.seccomp:
            return SECCOMP
        return "namespaces need CAP_SYS_ADMIN, or a user namespace: leave out --userns host"
    return ""


def _id_maps(error: int, host: Host) -> str:
    if error in _DENIED:
        if host.apparmor_restricts_userns and not host.may_map:
            return APPARMOR
        if host.uid == 0 and not host.holds("CAP_SETFCAP"):
            return (
                "only a caller with CAP_SETFCAP may map id 0 (user_namespaces(7)): start the outer container with "
                "--cap-add SETFCAP, or Stockade in it as another user than root"
            )
        return (
            "the kernel takes a map with other ids than the caller's own only from a caller with "
            "CAP_SETUID, CAP_SETGID "
            "and, for id 0 outside, CAP_SETFCAP: map the own id alone, or have subordinate ids and newuidmap"
        )
    if error == errno.EINVAL:
        return (
            "the kernel finds the map invalid: extents overlap, or hold ids that this user namespace "
            "itself does not have"
        )
    return ""


def _newuidmap(error: int, host: Host) -> str:
    name = host.user or str(host.uid)
    if error == errno.ENOENT:
        return "newuidmap is not installed: apt install uidmap, or leave out the map and use the own id alone"
    if host.no_helper:
        return f"{host.no_helper}: as root, chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap"
    return (
        f"/etc/subuid and /etc/subgid must give {name} all ids of the map: as root, usermod --add-subuids "
        f"FIRST-LAST {name}"
    )


def _first_mount(error: int, host: Host) -> str:
    """The first step that needs a capability in a new user namespace: where AppArmor's restriction is met."""
    if error == errno.ENOSYS:
        return SECCOMP if host.seccomp else "the kernel lacks this system call: Linux 5.12 or later is needed"
    if error in _DENIED:
        if host.apparmor_restricts_userns and not host.privileged:
            return APPARMOR
        if host.seccomp:
            return SECCOMP
        return "mounting needs CAP_SYS_ADMIN in the mount namespace: a security module may have taken it, see dmesg"
    return ""


def _ids(error: int, host: Host) -> str:
    if error == errno.EINVAL:
        return "the id is not in the container's map: choose another --user, or widen --uidmap and --gidmap"
    if error in _DENIED:
        if host.apparmor_restricts_userns and not host.privileged:
            return APPARMOR
        return (
            "changing ids needs CAP_SETUID and CAP_SETGID; setgroups is denied where the map was written "
            "without privilege"
        )
    return ""


def _mount(kind: str, error: int, host: Host) -> str:
    if error == errno.ENODEV:
        return f"this kernel has no file system {kind}: load its module, or leave the mount out of the mode"
    if error in _DENIED:
        if kind == "proc" and not _whole("proc", "/proc"):
            return NESTED.format("/proc", ", or use --pid host, which shows the /proc that there is")
        if kind == "sysfs" and not _whole("sysfs", "/sys"):
            return NESTED.format("/sys", ", or use --network host, which shows the /sys that there is")
        return _first_mount(error, host)
    if error == errno.ENOSPC:
        return "the limit of mounts in a namespace is reached: sysctl fs.mount-max"
    if error == errno.EBUSY and kind == "cgroup":
        return "the controller is in use by cgroup v2 or mounted with others: see /proc/cgroups"
    return ""


def _whole(kind: str, place: str) -> bool:
    """Tell whether a file system of this type is seen whole: mount_too_revealing() of the kernel, read from outside."""
    try:
        lines = [line.split(" ") for line in procfs.read_text("self", "mountinfo").split("\n") if line]
    except OSError:
        return False
    places = [fields[4] for fields in lines if f" - {kind} " in " ".join(fields) and fields[3] == "/"]
    above = [fields[4] for fields in lines if fields[4].startswith(place + "/")]
    # Mounts on directories that are always empty (binfmt_misc, /sys/fs/cgroup, debugfs) hide nothing.
    empty = ("/proc/sys/fs/binfmt_misc", "/sys/fs/", "/sys/kernel/", "/proc/fs/nfsd")
    return place in places and all(mount.startswith(empty) for mount in above)


def _idmap(error: int, host: Host) -> str:
    if error in (errno.EINVAL, errno.EOPNOTSUPP):
        kernel = f"{host.kernel[0]}.{host.kernel[1]}"
        return (
            f"the file system of the rootfs can't be id-mapped on this kernel ({kernel}; ext4 and xfs "
            "can since 5.12, tmpfs "
            "since 6.3): chown the rootfs to the mapped ids, or use --userns host"
        )
    if error in _DENIED:
        return (
            "an id-mapped mount needs CAP_SYS_ADMIN where the file system was mounted: chown the rootfs "
            "to the mapped ids"
        )
    return ""


def _cgroup(error: int, host: Host) -> str:
    if error == errno.EROFS:
        return "the cgroup file system is read-only here, as in a container: run without limits, or with --best-effort"
    if error in (errno.ENOENT, errno.ENODEV):
        return "no cgroup file system with this controller is mounted: mount it, or use --best-effort"
    if error in _DENIED and host.uid:
        return (
            "this cgroup is not delegated to the user: systemd-run --user --scope -p Delegate=yes, or use --best-effort"
        )
    if error in _DENIED:
        return (
            "the cgroup is not this container's to write: start the outer one with its own cgroup, or use --best-effort"
        )
    return ""


def _rootfs(error: int, _: Host) -> str:
    if error in _DENIED:
        return "the container's root must be able to search every directory above the rootfs: see namei -l on its path"
    return {
        errno.ENOENT: "--rootfs takes a directory with an unpacked root file system in it",
        errno.ENOTDIR: "unpack the archive first, and name the directory",
        errno.ELOOP: "make /proc, /sys and /dev of the rootfs directories: links there lead out of it",
    }.get(error, "")


def _exec(error: int, host: Host) -> str:
    if error == errno.ENOENT:
        return (
            "name a program that is in the container; of a script or a dynamic program the interpreter "
            "must be there too"
        )
    if error == errno.ENOEXEC:
        return f"it is built for another architecture than {host.arch}, or a script without #! in its first line"
    if error in _DENIED:
        return "the container's user needs the right to execute it (chmod a+x), on a mount without noexec"
    return ""
