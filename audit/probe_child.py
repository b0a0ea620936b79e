"""The child half of a probe: take on a target's namespaces and credentials, open control files, answer, end.

Rules that everything here keeps, because the mount namespace it works in is hostile:

* Control files are opened O_WRONLY and closed. Never a write, never O_CREAT or O_TRUNC.
* Only files of procfs, sysfs, cgroupfs and binfmt_misc are opened. The file system is told from a descriptor that
  is already there (O_PATH opens nothing) and files below it are reached with RESOLVE_NO_XDEV, so that a FIFO, a
  device or a FUSE file that was mounted over the path is refused and never opened.
* Nothing is imported, executed or loaded; the pid namespace is not joined, so that the container does not see this
  process; it is not dumpable, so that one which shares the host's pid namespace can't trace it; it dumps no core and
  holds only its pipe.
"""

import contextlib
import ctypes
import errno
import gc
import json
import os
import pickle
import resource
import signal
import socket
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from stockade.sandbox.linux import calls, sock_diag
from stockade.sandbox.linux.calls_base import libc

if TYPE_CHECKING:
    from stockade.audit.probe import Credentials, Request

#: include/uapi/linux/magic.h: procfs, sysfs, cgroup, cgroup2, binfmt_misc
MAGIC = frozenset({0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x42494E4D})
#: seconds after which a child ends itself
LIFETIME = 5
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 28, 38
_SECBIT_NO_SETUID_FIXUP = 1 << 2
# RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH
_NO_XDEV, _NO_LINKS, _BENEATH = 0x01, 0x02 | 0x04, 0x08
_OPENAT2 = ctypes.c_long(437)
_AT_FDCWD = ctypes.c_long(-100)
_HOW_SIZE = ctypes.c_size_t(24)
_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
_ST_RDONLY, _ST_NODEV = 1, 4
_MOST_DEVICES = 4096

_Directories = dict[bytes, tuple[bytes, ...]]


def serve(control: int, sysctls: tuple[str, ...]) -> NoReturn:
    """Be the helper: fork a child for each request. Never returns; ends when the auditor closes the socket."""
    try:
        calls.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: the kernel reaps them
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the auditor's, whose end is ours
        _close_all_but(control)
        requests = socket.socket(fileno=control)
        sweep = _by_directory([f"/proc/sys/{name}" for name in sysctls])
        gc.disable()
        gc.freeze()  # a collection would touch, and so copy, every page in each child
        while True:
            data, descriptors, _, _ = socket.recv_fds(requests, 1 << 18, 3)
            if not data:
                break
            pidfd, root, pipe = descriptors
            if os.fork() == 0:
                requests.close()
                # From the auditor, over a socket that nobody else has.
                _run(pickle.loads(data), pidfd, root, pipe, sweep)  # noqa: S301
            for descriptor in descriptors:
                os.close(descriptor)
    finally:
        os._exit(0)


def _run(request: "Request", pidfd: int, root: int, pipe: int, sweep: _Directories) -> NoReturn:
    """Measure, write the answer as JSON, never return: an exception must not run on in the helper's code."""
    try:
        signal.setitimer(signal.ITIMER_REAL, LIFETIME)
        data = json.dumps(_measured(request, pidfd, root, pipe, sweep)).encode("ascii")
        while data:
            data = data[os.write(pipe, data) :]
    finally:
        os._exit(0)


def _measured(request: "Request", pidfd: int, root: int, pipe: int, sweep: _Directories) -> dict[str, Any]:
    try:
        _harden()
        _close_all_but(pidfd, root, pipe)
        # Links there reopen what an O_PATH descriptor holds; this is the host's procfs, opened before joining.
        links = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        label = _become(request, pidfd, root)
        peers = _peers() if request.join & _CLONE_NEWNET else None
        _harden()  # a change of ids makes a process dumpable again and forgets the parent's death signal
    except OSError as error:
        return {"error": f"the target's namespaces or credentials can't be taken on: {error.strerror}"}
    errors: dict[str, str] = {}
    devices: list[tuple[str, bool, int, int, bool]] = []
    try:
        devices.extend(_devices("/dev", request.nodes))
    except FileNotFoundError:
        pass  # no /dev, no devices
    except OSError as error:
        errors["devices"] = f"/dev: {error.strerror}"
    swept = _opened(sweep, links, os.O_WRONLY, all_answers=False) if request.sweep else {}
    return {
        "write": swept | _opened(_by_directory(request.write), links, os.O_WRONLY, all_answers=True),
        "read": _opened(_by_directory(request.read), links, os.O_RDONLY, all_answers=True),
        "sockets": {path: _may_write(path) for path in request.sockets},
        "devices": devices,
        "peers": peers,
        "errors": errors,
        "label": label,
    }


def _peers() -> list[tuple[int, int]] | None:
    try:
        return list(sock_diag.unix_peers().items())
    except OSError:
        return None  # a kernel without CONFIG_UNIX_DIAG


def _by_directory(paths: Iterable[str]) -> _Directories:
    found: dict[bytes, list[bytes]] = {}
    for path in paths:
        directory, _, name = os.fsencode(path).rpartition(b"/")
        found.setdefault(directory, []).append(name)
    return {directory: tuple(names) for directory, names in found.items()}


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


def _opened(directories: _Directories, links: int, access: int, *, all_answers: bool) -> dict[str, int]:
    """Try each file; give errno by path, 0 for those that opened.

    Without `all_answers` only opened ones are told, and a directory on a read-only mount is passed over as a whole.
    """
    answers: dict[str, int] = {}
    look = _OpenHow(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _NO_LINKS)
    how = _OpenHow(access | _FLAGS, 0, _NO_LINKS | _BENEATH | _NO_XDEV)
    for directory, names in directories.items():
        base = _openat2(_AT_FDCWD, directory, look)
        error = -base if base < 0 else 0
        if base >= 0:
            magic, flags = _statfs(base)
            # What lies there is no control file, whatever its name: there is none.
            error = 0 if magic in MAGIC else errno.ENOENT
            if not all_answers and (error or flags & _ST_RDONLY):
                names = ()  # noqa: PLW2901
        elif not all_answers:
            continue
        for name in names:
            number = error or _try(base, name, how, links, access)
            if all_answers or number == 0:
                answers[os.fsdecode(directory + b"/" + name)] = number
        if base >= 0:
            os.close(base)
    return answers


def _try(base: int, name: bytes, how: _OpenHow, links: int, access: int) -> int:
    result = _openat2(base, name, how)
    if result >= 0:
        os.close(result)
        return 0
    if result != -errno.EXDEV:
        return -result
    # Something is mounted over it. What is it? O_PATH tells without opening it.
    result = _openat2(base, name, _OpenHow(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _NO_LINKS | _BENEATH))
    if result < 0:
        return -result
    try:
        return _reopen(result, links, access) if _statfs(result)[0] in MAGIC else errno.EXDEV
    finally:
        os.close(result)


def _reopen(descriptor: int, links: int, access: int) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return errno.EXDEV
    result = _openat2(links, str(descriptor).encode(), _OpenHow(access | _FLAGS & ~os.O_NOFOLLOW, 0, 0))
    if result < 0:
        return -result
    os.close(result)
    return 0


def _statfs(descriptor: int) -> tuple[int, int]:
    """Give f_type and f_flags; struct statfs of 64-bit machines is an array of longs but for f_fsid."""
    buffer = (ctypes.c_long * 32)()
    if libc.fstatfs(descriptor, ctypes.byref(buffer)) != 0:
        return -1, 0
    return int(buffer[0]), int(buffer[10])


def _may_write(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode) and os.access(path, os.W_OK, effective_ids=True)
    except OSError:
        return False


def _devices(top: str, nodes: frozenset[str]) -> Iterator[tuple[str, bool, int, int, bool]]:
    """List the nodes of /dev and its subdirectories. Looks at names and modes and opens directories only."""
    queue = [(top, 0)]
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
            nodev = bool(_statfs(descriptor)[1] & _ST_NODEV)
            for entry in os.scandir(descriptor):
                if entry.is_dir(follow_symlinks=False):
                    if depth < 2 and entry.name not in {"pts", "shm", "mqueue", "hugepages"}:
                        queue.append((f"{path}/{entry.name}", depth + 1))
                elif not entry.is_symlink() and not entry.is_file(follow_symlinks=False):
                    place = f"{path}/{entry.name}"
                    node = _device(descriptor, entry.name, place, nodev=None if place in nodes else nodev)
                    if node:
                        found += 1
                        yield node
        finally:
            os.close(descriptor)


def _device(directory: int, name: str, path: str, *, nodev: bool | None) -> tuple[str, bool, int, int, bool] | None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not (stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)):
        return None
    if nodev is None:
        # The node is a mount of its own (that is how rootless engines make /dev/null), with its own flags.
        node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        nodev = bool(_statfs(node)[1] & _ST_NODEV)
        os.close(node)
    usable = not nodev and any(
        os.access(name, mode, dir_fd=directory, effective_ids=True, follow_symlinks=False)
        for mode in (os.R_OK, os.W_OK)
    )
    return path, stat.S_ISBLK(status.st_mode), os.major(status.st_rdev), os.minor(status.st_rdev), usable
