// SPDX-License-Identifier: Apache-2.0
/* Who the process is and what it may do: ids, capabilities, limits, its filter, the settings of its namespaces. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#endif

enum { MAX_FILTER = 4096 /* BPF_MAXINSNS */, MAX_GROUPS = 65536 /* NGROUPS_MAX */ };

/* To setresuid(2) the largest number means "as it is", which is root; a larger one, cut, is somebody else's. */
static id_t id(void) {
    uint64_t n = number();
    if (n >= (id_t)-1)
        failed_with(EINVAL);
    return (id_t)n;
}

void step_set_ids(void) {
    uid_t uid = id();
    gid_t gid = id();
    int set_groups = (int)number(), keep = (int)number();
    static gid_t groups[MAX_GROUPS];
    uint64_t n = number();
    if (n > MAX_GROUPS)
        failed_with(EINVAL);
    for (uint64_t i = 0; i < n; i++)
        groups[i] = id();
    if (keep)
        check(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
    if (set_groups)
        check(syscall(SYS_setgroups, (long)n, groups));
    check(syscall(SYS_setresgid, gid, gid, gid));
    check(syscall(SYS_setresuid, uid, uid, uid));
    if (keep)
        check(prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0));
}

void step_keyring(void) {
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL) < 0 && errno != ENOSYS)
        failed(); /* ENOSYS: a kernel without keyrings has none to leak */
}

void step_rlimit(void) {
    int resource = (int)number();
    struct rlimit now, wanted;
    wanted.rlim_cur = number();
    wanted.rlim_max = number();
    check(getrlimit((__rlimit_resource_t)resource, &now));
    if (now.rlim_cur != wanted.rlim_cur || now.rlim_max != wanted.rlim_max) /* already so: needs no CAP_SYS_RESOURCE */
        check(setrlimit((__rlimit_resource_t)resource, &wanted));
}

void step_bounding(void) {
    uint64_t keep = number();
    for (int c = 0; c < 64; c++)
        if (!(keep >> c & 1) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0) {
            if (errno == EINVAL) /* past the last capability of this kernel */
                break;
            failed();
        }
}

void step_capabilities(void) {
    uint64_t effective = number(), permitted = number(), inheritable = number();
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    for (int i = 0; i < 2; i++) {
        d[i].effective = (uint32_t)(effective >> 32 * i);
        d[i].permitted = (uint32_t)(permitted >> 32 * i);
        d[i].inheritable = (uint32_t)(inheritable >> 32 * i);
    }
    check(syscall(SYS_capset, &h, d));
}

void step_ambient(void) {
    uint64_t raise = number();
    check(prctl(PR_CAP_AMBIENT, 4 /* CLEAR_ALL */, 0, 0, 0));
    for (int c = 0; c < 64; c++)
        if (raise >> c & 1)
            check(prctl(PR_CAP_AMBIENT, 2 /* RAISE */, c, 0, 0));
}

int load_filter(unsigned flags, const char *program, uint64_t n) {
    if (n % 8 || n / 8 > MAX_FILTER) /* the kernel's length has 16 bits: the start of a longer one must not pass for it */
        failed_with(EINVAL);
    struct sock_fprog p = {.len = (unsigned short)(n / 8), .filter = (struct sock_filter *)(uintptr_t)program};
    return check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p));
}

void step_seccomp(void) {
    unsigned flags = (unsigned)number();
    uint64_t n;
    const char *program = bytes(&n);
    int listener = load_filter(flags, program, n);
    if (!(flags & SECCOMP_FILTER_FLAG_NEW_LISTENER))
        return;
    /* The filter is in force: sendmsg(2) may have to be answered by whoever gets the listener. The supervisor takes it with
     * pidfd_getfd(2), hands it on and says so; write(2) is never notified of (runtime/seccomp.py), read(2) only after that. */
    struct answer a = {LISTENER, plan.step_number, 0, (uint32_t)listener};
    char go;
    ssize_t got;
    if (write(plan.sync_fd, &a, sizeof a) != (ssize_t)sizeof a)
        _exit(125);
    do
        got = read(plan.sync_fd, &go, 1);
    while (got < 0 && errno == EINTR);
    if (got != 1)
        _exit(125);
    close(listener);
}

/* ---- settings of the namespaces ---------------------------------------------------------------------------------- */

void step_loopback(void) {
    struct {
        char name[16];
        short flags;
        char rest[22];
    } request = {.name = "lo"};
    int s = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    check(ioctl(s, 0x8913 /* SIOCGIFFLAGS */, &request));
    request.flags |= 1; /* IFF_UP */
    check(ioctl(s, 0x8914 /* SIOCSIFFLAGS */, &request));
    close(s);
}
