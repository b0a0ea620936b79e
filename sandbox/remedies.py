"""What helps when a step fails: the errno patterns of real machines, by step."""

from __future__ import annotations

import errno
import os

from stockade.errors import CannotExecute, ProgramNotFound, StockadeError
from stockade.sandbox import steps as s
from stockade.sandbox.host import explain
from stockade.sandbox.steps_hooks import failed as hook_failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockade.sandbox.steps import Step

NEWUSER = 0x10000000
HOOK = "config.json names the hook under $.hooks: repair or remove it there"


def failure(steps: Sequence[Step], number: int, error: int, said: bytes = b"") -> StockadeError:
    """Turn the number of a step and an errno into an error with step, cause and remedy; `said` by hook or kernel."""
    if number >= len(steps):
        return StockadeError(f"the launcher stopped at step {number + 1}: {os.strerror(error)}")
    step = steps[number]
    if isinstance(step, s.Execute):
        return _cannot_execute(step, error)
    if isinstance(step, s.Find):
        return cannot_execute(step.program, error)
    if isinstance(step, s.Hook):
        return StockadeError(hook_failed(step.when, step.index, step.path, error, said), hint=HOOK)
    message = f"step {number + 1} of {len(steps)}, {step}: {os.strerror(error)}"
    if words := "".join([letter for letter in said.decode(errors="replace").strip() if letter.isprintable()]):
        message += f" ({words})"
    return StockadeError(message, hint=remedy(step, error))


def _cannot_execute(step: s.Execute, error: int) -> StockadeError:
    program = step.argv[0]
    if error in {errno.ENOENT, errno.ENOTDIR}:
        where = "" if "/" in program else " in $PATH"
        return ProgramNotFound(
            f"executable file {program!r} not found{where}",
            hint="look for it in the container's root, and for the interpreter or loader that it names",
        )
    return CannotExecute(
        f"{program!r} can't be executed: {os.strerror(error).lower()}",
        hint={
            errno.EACCES: "make the file executable for the container's user, on a mount without noexec",
            errno.ENOEXEC: "it is neither a program for this machine nor a script that starts with #!",
            errno.E2BIG: "shorten the arguments or the environment",
        }.get(error, ""),
    )


def cannot_execute(program: str, error: int) -> StockadeError:
    """Give the error for a program in the words of Go's os/exec: engines look for them in what a runtime says."""
    name = f'exec: "{program}": '
    if error in {errno.ENOENT, errno.ENOTDIR}:
        found = "executable file not found in $PATH"
        return ProgramNotFound(name + (f"stat {program}: no such file or directory" if "/" in program else found))
    return CannotExecute(name + os.strerror(error).lower())


def remedy(step: Step, error: int) -> str:
    """Give one sentence that says what to do, or an empty string. Looks at the host for what the errno leaves open."""
    if isinstance(step, (s.Clone, s.WriteMaps, s.Propagation, s.SetIds, s.Filesystem, s.Unshare)):
        found = _namespaces(step, error)
        if found:
            return found
    if isinstance(step, (s.Rlimit, s.RlimitRoom, s.OomScore)) and error in {errno.EPERM, errno.EACCES}:
        return _limits(step)
    for kinds, code, text in TABLE:
        if isinstance(step, kinds) and error == code:
            return text
    if error == errno.ENOSYS or (error in {errno.EPERM, errno.EACCES} and isinstance(step, MOUNTING)):
        return explain("propagation", error)
    return EXHAUSTED.get(error, "")


#: why a program in a memfd can't be started
SPAWN = {
    errno.EPERM: "a seccomp filter or security module on the caller forbids clone(2) or execve(2) of a memfd",
    errno.EACCES: "it runs from a memfd, which is forbidden here: sysctl vm.memfd_noexec=1 or 0, or a security module",
    errno.ENOENT: "it runs from a memfd through /proc, without a stream of the caller's: it needs /proc and /dev/null",
    errno.EAGAIN: "the limit of processes is reached: ulimit -u, or pids.max of the caller's cgroup",
    errno.ENOMEM: "there is no memory left: see the limit of the caller's cgroup",
    errno.EMFILE: "the limit of open files is reached: raise ulimit -n",
}
#: steps that need CAP_SYS_ADMIN in the mount namespace and nothing else
MOUNTING = (s.CloneTree, s.Attach, s.SetAttributes, s.Mask, s.ReadOnly, s.Pivot)
#: at any step
EXHAUSTED = {
    errno.EMFILE: "the limit of open files is reached: raise ulimit -n",
    errno.ENFILE: "the limit of open files of the whole machine is reached: sysctl fs.file-max",
    errno.ENOMEM: "there is no memory left: see the limit of the container's and of the caller's cgroup",
    errno.ENOSPC: "a file system is full, or a limit of /proc/sys/user or fs.mount-max is reached",
    errno.EDQUOT: "a quota of the user is used up: of the file system, or of keys (/proc/key-users)",
}


def _limits(step: s.Rlimit | s.RlimitRoom | s.OomScore) -> str:
    """Say what the caller has itself, who is the one that can't give more."""
    from stockade.sandbox.linux import procfs

    if isinstance(step, s.OomScore):
        own = procfs.read("self", "oom_score_adj").decode().strip()
        return f"the caller has {own}, and going lower needs CAP_SYS_RESOURCE of the host: ask for no less"
    import resource

    _, hard = resource.getrlimit(step.resource)
    own = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    return (
        f"the caller has at most {own}, and a higher limit needs CAP_SYS_RESOURCE of the host: ask for less "
        f"(--ulimit {step.name}=…; Podman: default_ulimits in containers.conf; Docker: default-ulimits in daemon.json)"
    )


def _namespaces(step: Step, error: int) -> str:
    return explain(step_name(step), error)


def step_name(step: Step) -> str:
    """Give a word for the kind of step, as `host.explain` takes it."""
    if isinstance(step, s.Filesystem):
        return f"mount {step.type}"
    if isinstance(step, s.Clone):
        return "user namespace" if step.flags & NEWUSER else "clone"
    names: dict[type[Step], str] = {
        s.WriteMaps: "id maps",
        s.Propagation: "propagation",
        s.SetIds: "ids",
        s.Unshare: "unshare",
    }
    return names.get(type(step), "")


#: a container in a container
NO_PROCFS = (
    "and a procfs of one's own may not be mounted: start the outer container with --security-opt systempaths=unconfined"
)
TABLE: tuple[tuple[type[Step] | tuple[type[Step], ...], int, str], ...] = (
    (s.Open, errno.ENOENT, "the path must exist on the host"),
    (s.Open, errno.EACCES, "the user who starts the container must be able to reach the path"),
    (s.Open, errno.ENOTDIR, "name a directory"),
    (
        (s.RefuseLink, s.EnsureReal),
        errno.ELOOP,
        "the root file system is hostile or broken: make /proc, /sys and /dev directories",
    ),
    (
        s.EnsureReal,
        errno.ENOTDIR,
        "the root file system is hostile or broken: make /proc, /sys and /dev directories",
    ),
    (s.EnsureReal, errno.EROFS, "make the directory in the root file system first: it can't be written"),
    (s.EnsureReal, errno.EACCES, "the container's root must own the root file system: chown it to the mapped ids"),
    ((s.Ensure, s.EnsureLike), errno.EROFS, "make the mount point in the root file system first: it can't be written"),
    (
        (s.Ensure, s.EnsureLike),
        errno.EACCES,
        "the container's root must own the root file system: chown it to the mapped ids",
    ),
    (
        (s.Ensure, s.EnsureLike),
        errno.EOVERFLOW,
        "the owner of that directory is not mapped: chown the root file system to the mapped ids",
    ),
    ((s.Ensure, s.EnsureLike), errno.ELOOP, "a link in the root file system leads through /proc: that is refused"),
    ((s.Ensure, s.EnsureLike), errno.ENOENT, "a link in the root file system leads nowhere: make its target"),
    (
        (s.Ensure, s.EnsureLike),
        errno.ENOTDIR,
        "the mount point and what is mounted must both be directories or both be files",
    ),
    (
        (s.Ensure, s.EnsureLike),
        errno.EISDIR,
        "the mount point and what is mounted must both be directories or both be files",
    ),
    (s.WorkingDirectory, errno.ELOOP, "the working directory may not lead through /proc/self/fd (CVE-2024-21626)"),
    (s.WorkingDirectory, errno.ENOENT, "the working directory must exist inside the container"),
    (s.WorkingDirectory, errno.EACCES, "the container's user must be able to enter the working directory"),
    (s.WorkingDirectory, errno.ENOTDIR, "name a directory with --workdir"),
    (s.BindNode, errno.ENODEV, "the host's node is another device: repair /dev of the host"),
    (s.BindNode, errno.ENOENT, "the host has no such device node"),
    (s.MakeNode, errno.EPERM, "making device nodes needs CAP_MKNOD in the initial user namespace"),
    (s.Place, errno.EACCES, "the cgroup is not delegated to this user: systemd-run --user --scope -p Delegate=yes"),
    (s.Place, errno.ENOSPC, "the cpuset of the parent group is empty"),
    (s.Sysctl, errno.EACCES, "this sysctl is not of a namespace that the container owns"),
    (s.Sysctl, errno.ENOENT, "this kernel has no such sysctl"),
    (s.Seccomp, errno.EINVAL, "this kernel refuses the filter or its flags: it may be too long (4096 instructions)"),
    (s.Seccomp, errno.EACCES, "a filter needs no_new_privs or CAP_SYS_ADMIN"),
    (s.Capabilities, errno.EPERM, "the caller does not hold all of these capabilities itself"),
    (s.Securebits, errno.EPERM, "securebits need CAP_SETPCAP"),
    (s.Scheduler, errno.EPERM, "this needs CAP_SYS_NICE of the host, and a real-time budget in the container's cgroup"),
    (s.Scheduler, errno.EINVAL, "the policy does not go with these values: sched(7) has what each takes"),
    (s.Scheduler, errno.EBUSY, "there is no processor time left to promise, or the affinity leaves processors out"),
    (s.IoPriority, errno.EPERM, "the real-time class needs CAP_SYS_ADMIN or CAP_SYS_NICE of the host"),
    (s.Affinity, errno.EINVAL, "none of these processors is one that the process may run on: see cpuset(7)"),
    (s.HostProc, errno.ENODEV, "what is mounted on /proc here is not a procfs"),
    (s.Sysctl, errno.EROFS, f"/proc/sys is read-only here, {NO_PROCFS}"),
    (s.Sysctl, errno.EXDEV, f"something is mounted over /proc/sys here, {NO_PROCFS}"),
    (s.Sysctl, errno.EINVAL, "the kernel does not take this value for the sysctl"),
    (s.TimeOffsets, errno.EINVAL, "this kernel has no time namespaces"),
    (s.TimeOffsets, errno.ERANGE, "an offset would make the clock negative or too large"),
    (s.TimeOffsets, errno.EPERM, "a time namespace needs CAP_SYS_ADMIN and CAP_SYS_TIME, or a user namespace"),
    (s.Label, errno.ENOENT, "no such profile is loaded, or no security module is there: apparmor_parser(8) loads one"),
    (s.Label, errno.EINVAL, "the security module does not know the label"),
    (s.Label, errno.EACCES, "the caller's own profile does not let it change to this one"),
    (s.MemoryPolicy, errno.EINVAL, "mode, flags and nodes don't go together, or a node is not there: set_mempolicy(2)"),
    (s.MemoryPolicy, errno.ENOSYS, "this kernel has no memory policies"),
    (s.Keyring, errno.EPERM, "a filter on the caller forbids keyctl(2): --no-new-keyring leaves the caller's keys"),
    (s.Keyring, errno.EDQUOT, "the user's quota of keys is used up: see /proc/key-users"),
    (s.Terminal, errno.ENOENT, "a terminal needs a devpts on /dev/pts in the container"),
    (s.Clone, errno.EAGAIN, "the limit of processes is reached: ulimit -u, or pids.max of the caller's cgroup"),
    (s.Clone, errno.EPERM, "making namespaces needs CAP_SYS_ADMIN, or a user namespace"),
)
