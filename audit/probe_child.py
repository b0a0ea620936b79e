"""The child half of a probe: take on a target's namespaces and credentials, open control files, answer, end.

Rules that everything here keeps, because the mount namespace it works in is hostile:

* Control files are opened O_WRONLY and closed. Never a write, never O_CREAT or O_TRUNC.
* Only files of procfs, sysfs, cgroupfs and binfmt_misc are opened. The file system is told from a descriptor that is already
  there (O_PATH opens nothing) and files below it are reached with RESOLVE_NO_XDEV, so that a FIFO, a device or a
  FUSE file that was mounted over the path is refused and never opened.
* Nothing is imported, executed or loaded; the pid namespace is not joined, so that the container does not see this
  process; it is not dumpable, so that one which shares the host's pid namespace can't trace it; it dumps no core and
  holds only its pipe.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from stockade.sandbox.linux import calls
from stockade.sandbox.linux.calls_base import libc

if TYPE_CHECKING:
    from stockade.audit.probe import Credentials, Request

#: include/uapi/linux/magic.h: procfs, sysfs, cgroup, cgroup2, binfmt_misc
MAGIC = frozenset({0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x42494E4D})
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 28, 38
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_BENEATH = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS
_NO_XDEV = 0x01
_OPENAT2 = ctypes.c_long(437)
_AT_FDCWD = ctypes.c_long(-100)
_HOW_SIZE = ctypes.c_size_t(24)
_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
_ST_NODEV = 4
_MOST_DEVICES = 4096


def run(request: "Request", pidfd: int, root: int, pipe: int) -> NoReturn:
    """Measure and write the answer as JSON to `pipe`. Never returns: whatever happens, the process ends here."""
    try:
        signal.alarm(10)  # should the parent be gone
        answer = _measured(request, pidfd, root, pipe)
        data = json.dumps(answer).encode("ascii")
        while data:
            data = data[os.write(pipe, data) :]
    except BaseException:  # noqa: BLE001 - an exception must not run on in the parent's code
        os._exit(1)
    finally:
        os._exit(0)


def _measured(request: "Request", pidfd: int, root: int, pipe: int) -> dict[str, Any]:
    try:
        _harden()
        _close_all_but(pidfd, root, pipe)
        # Links in /proc/self/fd reopen what an O_PATH descriptor holds; this is the host's procfs, opened before joining.
        links = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        label = _become(request, pidfd, root)
        _harden()  # a change of ids makes a process dumpable again and forgets the parent's death signal
    except OSError as error:
        return {"error": f"the target's namespaces or credentials can't be taken on: {error.strerror}"}
    errors: dict[str, str] = {}
    devices: list[tuple[str, bool, int, int, bool]] = []
    for directory in request.devices:
        try:
            devices.extend(_devices(directory))
        except OSError as error:
            errors["devices"] = f"{directory}: {error.strerror}"
    write = _opened(request.sweep, links, os.O_WRONLY, all_answers=False)
    return {
        "write": write | _opened(request.named, links, os.O_WRONLY, all_answers=True),
        "read": _opened(request.read, links, os.O_RDONLY, all_answers=True),
        "sockets": {path: _may_write(path) for path in request.sockets},
        "devices": devices,
        "errors": errors,
        "label": label,
    }


def _harden() -> None:
    calls.prctl(_PR_SET_DUMPABLE, 0)
    calls.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _close_all_but(*kept: int) -> None:
    first = 0
    for descriptor in (*sorted(kept), 1 << 31):
        if descriptor > first:
            calls.close_range(first, descriptor - 1)
        first = descriptor + 1


def _become(request: "Request", pidfd: int, root: int) -> bool:
    """Join, change root, take ids and capabilities. Gives whether the LSM label was taken on."""
    wanted = request.credentials
    label = _label_file(wanted.label)
    outside = _may_change_ids()
    if outside:
        # Ids first, by their host numbers: some may have no name inside, and setgroups(2) may be denied there. The
        # securebit keeps the capabilities over the change.
        calls.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
        _take_ids(wanted.uids, wanted.gids, wanted.groups)
    if request.join:
        calls.setns(pidfd, request.join)
    if request.join & _CLONE_NEWUSER and not outside:
        if wanted.inside is None:
            raise OSError(errno.EINVAL, "its ids have no name in its user namespace")
        calls.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
        _take_ids(*wanted.inside)
    elif not outside and (os.getresuid(), os.getresgid()) != (wanted.uids[:3], wanted.gids[:3]):
        raise OSError(errno.EPERM, "other ids need CAP_SETUID and CAP_SETGID")
    if request.chroot:
        os.fchdir(root)
        os.chroot(".")
    os.close(root)
    os.close(pidfd)
    taken = _take_label(label, wanted.label)
    _take_capabilities(wanted)
    return taken


def _may_change_ids() -> bool:
    effective = calls.capget()[0]
    needed = (6, 7, 8)  # CAP_SETGID, CAP_SETUID, CAP_SETPCAP
    return all(effective >> capability & 1 for capability in needed)


def _take_ids(uids: tuple[int, ...], gids: tuple[int, ...], groups: tuple[int, ...]) -> None:
    if sorted(os.getgroups()) != sorted(groups):
        os.setgroups(groups)
    os.setresgid(*gids[:3])
    libc.setfsgid(ctypes.c_uint(gids[3]))
    os.setresuid(*uids[:3])
    libc.setfsuid(ctypes.c_uint(uids[3]))


def _take_capabilities(wanted: "Credentials") -> None:
    effective, permitted, _ = calls.capget()
    if effective >> 8 & 1:  # CAP_SETPCAP
        for capability in range(64):
            if not wanted.bounding >> capability & 1:
                with contextlib.suppress(OSError):  # EINVAL above the last capability of this kernel
                    calls.prctl(_PR_CAPBSET_DROP, capability)
    if wanted.no_new_privs:
        calls.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # An auditor that lacks a capability can't lend it: what it can't take is told by `missing` in the parent.
    calls.capset(wanted.effective & permitted, wanted.permitted & permitted, wanted.inheritable & permitted)


def _label_file(label: str) -> int | None:
    if not label:
        return None
    for path in ("/proc/thread-self/attr/apparmor/current", "/proc/thread-self/attr/current"):
        with contextlib.suppress(OSError):
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    return None


def _take_label(descriptor: int | None, label: str) -> bool:
    if descriptor is None:
        return not label
    try:
        os.write(descriptor, f"changeprofile {label}".encode())
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(directory: int | ctypes.c_long, path: bytes, how: _OpenHow) -> int:
    """Give a descriptor or the negative errno: an exception a file would double the time of a sweep."""
    result = int(libc.syscall(_OPENAT2, directory, path, ctypes.byref(how), _HOW_SIZE))
    return result if result >= 0 else -ctypes.get_errno()


def _opened(
    groups: Mapping[str, tuple[str, ...]], links: int, access: int, *, all_answers: bool
) -> dict[str, int]:
    """Try each file; give errno by path, 0 for those that opened."""
    answers: dict[str, int] = {}
    for point, names in groups.items():
        base = _base(point)
        for name in names:
            error = -base if base < 0 else _try(base, name, links, access)
            if all_answers or error == 0:
                answers[f"{point.rstrip('/')}/{name}" if name else point] = error
        if base >= 0:
            os.close(base)
    return answers


def _base(point: str) -> int:
    """Give an O_PATH descriptor of a mount point (which opens nothing there) or a negative errno."""
    how = _OpenHow(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _BENEATH & ~0x08)
    descriptor = _openat2(_AT_FDCWD, os.fsencode(point), how)
    if descriptor >= 0 and _magic(descriptor) not in MAGIC:
        os.close(descriptor)
        return -errno.EXDEV
    return descriptor


def _try(base: int, name: str, links: int, access: int) -> int:
    if not name:
        return _reopen(base, links, access)
    path = os.fsencode(name)
    result = _openat2(base, path, _OpenHow(access | _FLAGS, 0, _BENEATH | _NO_XDEV))
    if result == -errno.EXDEV:
        # Something is mounted over it. What is it? O_PATH tells without opening it.
        result = _openat2(base, path, _OpenHow(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _BENEATH))
        if result < 0:
            return -result
        try:
            return _reopen(result, links, access) if _magic(result) in MAGIC else errno.EXDEV
        finally:
            os.close(result)
    if result < 0:
        return -result
    os.close(result)
    return 0


def _reopen(descriptor: int, links: int, access: int) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return errno.EXDEV
    how = _OpenHow(access | _FLAGS & ~os.O_NOFOLLOW, 0, 0)
    result = _openat2(links, str(descriptor).encode(), how)
    if result < 0:
        return -result
    os.close(result)
    return 0


def _magic(descriptor: int) -> int:
    buffer = (ctypes.c_long * 32)()  # struct statfs: f_type comes first on 64-bit machines
    return int(buffer[0]) if libc.fstatfs(descriptor, ctypes.byref(buffer)) == 0 else -1


def _may_write(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode) and os.access(path, os.W_OK, effective_ids=True)
    except OSError:
        return False


def _devices(directory: str) -> Iterator[tuple[str, bool, int, int, bool]]:
    """List the nodes of /dev and its subdirectories. Looks at names and modes and opens directories only."""
    queue = [(directory, 0)]
    found = 0
    while queue and found < _MOST_DEVICES:
        path, depth = queue.pop(0)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            if depth == 0:
                raise
            continue
        try:
            nodev = bool(os.fstatvfs(descriptor).f_flag & _ST_NODEV)
            for entry in os.scandir(descriptor):
                if entry.is_dir(follow_symlinks=False):
                    if depth < 2 and entry.name not in {"pts", "shm", "mqueue", "hugepages"}:
                        queue.append((f"{path}/{entry.name}", depth + 1))
                elif not entry.is_symlink() and not entry.is_file(follow_symlinks=False):
                    node = _device(descriptor, entry.name, f"{path}/{entry.name}", nodev=nodev)
                    if node:
                        found += 1
                        yield node
        finally:
            os.close(descriptor)


def _device(directory: int, name: str, path: str, *, nodev: bool) -> tuple[str, bool, int, int, bool] | None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not (stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)):
        return None
    # A node can be a mount of its own (that is how rootless engines make /dev/null), with its own flags.
    node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        nodev = bool(os.fstatvfs(node).f_flag & _ST_NODEV) or nodev and status.st_dev == os.fstat(directory).st_dev
    finally:
        os.close(node)
    usable = not nodev and any(
        os.access(name, mode, dir_fd=directory, effective_ids=True, follow_symlinks=False) for mode in (os.R_OK, os.W_OK)
    )
    return path, stat.S_ISBLK(status.st_mode), os.major(status.st_rdev), os.minor(status.st_rdev), usable
