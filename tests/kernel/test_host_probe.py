"""The probe tells the truth about this kernel and about callers with less than root."""

from __future__ import annotations

import errno
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox import host as hosts
from stockade.sandbox.explain import explain
from stockade.sandbox.linux import calls
from stockade.sandbox.linux.idmap import Mapping

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable

    from stockade.sandbox.host import Host

    Forked = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.kernel

NEWNS, NEWUSER = 0x00020000, 0x10000000
BIND, RDONLY, PRIVATE, REC = 1 << 12, 1, 1 << 18, 1 << 14
PR_SET_NO_NEW_PRIVS = 38


def probed() -> Host:
    return hosts._probe()


def become(user: pwd.struct_passwd) -> None:
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


def private_mounts() -> None:
    calls.unshare(NEWNS)
    calls.mount("none", "/", "", PRIVATE | REC)


def own_user_namespace() -> None:
    calls.unshare(NEWUSER | NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def test_a_probe_takes_less_than_a_millisecond() -> None:
    def measure() -> float:
        start = time.perf_counter()
        hosts._probe()
        return time.perf_counter() - start

    assert min(measure() for _ in range(30)) < 1e-3


def test_root_may_do_without_a_user_namespace() -> None:
    host = probed()

    assert host.privileged
    assert host.may_map
    assert host.no_userns == ""
    assert host.subuid


def test_a_user_has_its_subordinate_ids_and_the_helpers(forked: Forked, unprivileged: pwd.struct_passwd) -> None:
    def as_user() -> Host:
        become(unprivileged)
        return probed()

    host = forked(as_user)

    assert (host.uid, host.user, host.privileged, host.may_map) == (
        unprivileged.pw_uid,
        unprivileged.pw_name,
        False,
        False,
    )
    assert host.subuid
    assert host.subgid
    assert (host.newuidmap, host.no_helper) == ("/usr/bin/newuidmap", "")


def test_no_new_privs_of_the_caller_makes_newuidmap_useless(forked: Forked, unprivileged: pwd.struct_passwd) -> None:
    def confined() -> Host:
        become(unprivileged)
        calls.prctl(PR_SET_NO_NEW_PRIVS, 1)
        return probed()

    host = forked(confined)

    assert host.newuidmap == ""
    assert "no_new_privs" in host.no_helper


def test_a_newuidmap_without_its_setuid_bit_is_seen(
    forked: Forked, unprivileged: pwd.struct_passwd, public_tmp: Any
) -> None:
    plain = public_tmp / "newuidmap"
    shutil.copy("/usr/bin/newuidmap", plain)
    plain.chmod(0o755)

    def without() -> Host:
        private_mounts()
        calls.mount(str(plain), "/usr/bin/newuidmap", "", BIND)
        become(unprivileged)
        return probed()

    assert "neither setuid root" in forked(without).no_helper


def test_a_user_without_an_entry_has_no_subordinate_ids(forked: Forked, unprivileged: pwd.struct_passwd) -> None:
    def without() -> Host:
        private_mounts()
        calls.mount("/dev/null", "/etc/subuid", "", BIND)
        become(unprivileged)
        return probed()

    host = forked(without)

    assert (host.subuid, host.subgid) == ((), ())


def test_switched_off_user_namespaces_are_seen(forked: Forked) -> None:
    def switched_off() -> tuple[str, str]:
        own_user_namespace()
        # The limit is the user namespace's own: the machine's is not touched.
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
        try:
            calls.unshare(NEWUSER)
        except OSError as error:
            return probed().no_userns, explain("user namespace", error.errno or 0, probed())
        return "", "a user namespace could be made"

    reason, remedy = forked(switched_off)

    assert "max_user_namespaces is 0" in reason
    assert "sysctl user.max_user_namespaces=15000" in remedy


def test_root_of_a_user_namespace_takes_a_range_that_is_mapped_there(forked: Forked) -> None:
    def nested() -> tuple[Host, Host]:
        before = probed()
        own_user_namespace()
        return before, probed()

    before, host = forked(nested)

    assert before.subuid
    assert host.uidmap == (Mapping(0, 0, 1),)
    assert host.subuid == ()  # one id, which is the caller's own


def test_a_proc_with_covered_parts_is_named_as_the_reason_for_a_refused_mount(forked: Forked) -> None:
    def masked() -> tuple[int, str]:
        private_mounts()
        calls.mount("/dev/null", "/proc/interrupts", "", BIND)
        own_user_namespace()
        calls.unshare(0x20000000)  # CLONE_NEWPID
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                calls.mount("proc", "/proc", "proc", 0)
                os._exit(0)
            except OSError as error:
                os.write(writer, str(error.errno).encode())
                os._exit(0)
        os.wait()
        os.close(writer)
        code = int(os.read(reader, 10) or b"0")
        return code, explain("mount proc", code, probed())

    code, remedy = forked(masked)

    assert code == errno.EPERM
    assert "a container that masks parts of it" in remedy
    assert "--pid host" in remedy


def test_a_whole_proc_is_not_blamed() -> None:
    assert "masks parts" not in explain("mount proc", errno.EPERM, probed())


def test_apparmors_restriction_is_named_by_its_errno_pattern() -> None:
    host = probed()
    user = host.replace(uid=1000, caps=host.caps.replace(effective=0), apparmor_restricts_userns=True)

    for step in ("user namespace", "id maps", "propagation", "mount tmpfs"):
        assert "apparmor_restrict_unprivileged_userns" in explain(step, errno.EACCES, user), step
        assert "apparmor" not in explain(step, errno.EACCES, user.replace(apparmor_restricts_userns=False)), step


def test_a_seccomp_filter_of_the_caller_is_named_when_a_namespace_is_refused() -> None:
    host = probed()

    assert "seccomp=unconfined" in explain("user namespace", errno.EPERM, host.replace(seccomp=True))
    assert "seccomp=unconfined" not in explain("user namespace", errno.EPERM, host.replace(seccomp=False))
