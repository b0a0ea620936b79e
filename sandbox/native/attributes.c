// SPDX-License-Identifier: Apache-2.0
/*
 * Attributes of the process beside its ids and capabilities. Those that only a capability of the initial user namespace can
 * raise (oom_score_adj, hard limits, scheduling) are set by the launcher, from outside: the new process has none there once
 * it is in a user namespace. The others it sets itself. What goes through procfs goes through the host's, checked: a root
 * file system can bring anything as its /proc (CVE-2019-16884, CVE-2025-52881).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

enum { PROC_ROOT_INODE = 1 };

/* ---- from outside ----------------------------------------------------------------------------------------------- */

static int on_procfs(int fd) {
    struct statfs s;
    return fstatfs(fd, &s) < 0 ? -1 : s.f_type == PROC_SUPER_MAGIC ? 0 : (errno = ENODEV, -1);
}

/* Lowering needs CAP_SYS_RESOURCE, so what is so already is left alone. */
static int oom_score(pid_t pid) {
    const char *value = text();
    char path[64], now[16] = "";
    proc_path(path, pid, "oom_score_adj");
    int fd = open(path, O_RDWR | O_CLOEXEC), result = -1;
    if (fd < 0)
        return -1;
    ssize_t n = on_procfs(fd) < 0 ? -1 : read(fd, now, sizeof now - 1);
    if (n > 0) {
        if (now[n - 1] == '\n')
            now[n - 1] = 0;
        result = strcmp(now, value) == 0 || pwrite(fd, value, strlen(value), 0) == (ssize_t)strlen(value) ? 0 : -1;
    }
    int error = errno;
    close(fd);
    return errno = error, result;
}

/* Raise the hard limit where the process's own step RLIMIT will need that; the soft one stays until then. */
static int rlimit_room(pid_t pid) {
    int resource = (int)number();
    rlim_t hard = number();
    struct rlimit now;
    if (prlimit(pid, (__rlimit_resource_t)resource, NULL, &now) < 0)
        return -1;
    if (now.rlim_max >= hard)
        return 0;
    now.rlim_max = hard;
    return prlimit(pid, (__rlimit_resource_t)resource, &now, NULL);
}

static int scheduler(pid_t pid) {
    struct { /* struct sched_attr of Linux 3.14, which all later ones take */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } a = {.size = sizeof a};
    a.policy = (uint32_t)number();
    a.flags = number();
    a.nice = (int32_t)number();
    a.priority = (uint32_t)number();
    a.runtime = number();
    a.deadline = number();
    a.period = number();
    return (int)syscall(SYS_sched_setattr, pid, &a, 0);
}

static int affinity(pid_t pid) {
    uint64_t n;
    const char *mask = bytes(&n);
    return (int)syscall(SYS_sched_setaffinity, pid, (unsigned)n, mask);
}

/* The processes of the PID namespace that has been joined, and no file that is about the machine; by the launcher, as long as
 * it is where it may mount that. */
static int pids_proc(void) {
    int to = slot_number(), context = (int)syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC), fd = -1;
    if (context < 0)
        return -1;
    if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "subset", "pid", 0) == 0 &&
        syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    int error = errno;
    close(context);
    if (fd >= 0)
        put(to, fd);
    return errno = error, fd;
}

int outside_step(uint32_t op, pid_t pid) {
    switch (op) {
    case OP_OOM_SCORE: return oom_score(pid);
    case OP_RLIMIT_ROOM: return rlimit_room(pid);
    case OP_SCHEDULER: return scheduler(pid);
    case OP_IO_PRIORITY: return (int)syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, pid, (int)number());
    case OP_AFFINITY: return affinity(pid);
    case OP_PIDS_PROC: return pids_proc();
    default: return errno = EBADMSG, -1;
    }
}

/* ---- procfs ----------------------------------------------------------------------------------------------------- */

/* The host's own, opened before any other mount namespace is entered; its root, and not a directory bound over /proc. */
/* A file of that procfs itself, never of something that is mounted over a part of it. "self" is a link, and no magic one. */
static int open_procfs(int proc, const char *path, uint64_t flags) {
    struct open_how how = {
        .flags = flags | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, proc, path, &how, sizeof how);
    if (fd >= 0 && on_procfs(fd) < 0) {
        close(fd);
        return errno = ENODEV, -1;
    }
    return fd;
}

/* A procfs of our own, in no tree of mounts. It can be had only where one is wholly visible already, as for any mount of it. */
static int fresh_procfs(void) {
    int fs = (int)syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC), fd = -1;
    if (fs >= 0 && syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        fd = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
    if (fs >= 0)
        close(fs);
    return fd;
}

void step_host_proc(void) {
    struct stat s;
    int to = slot_number(), fd = check(open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    check(on_procfs(fd));
    check(fstat(fd, &s));
    if (s.st_ino != PROC_ROOT_INODE)
        failed_with(ENODEV);
    /* In a container /proc/sys is covered by a read-only copy of itself, for its own namespaces' files as well. */
    int sys = open_procfs(fd, "sys", O_PATH), own = sys < 0 ? fresh_procfs() : -1;
    if (sys >= 0)
        close(sys);
    if (own >= 0) {
        close(fd);
        fd = own;
    }
    put(to, fd);
}

static void write_all(int fd, const char *value, uint64_t n) {
    ssize_t done = write(fd, value, n);
    if (done != (ssize_t)n)
        failed_with(done < 0 ? errno : EIO);
    check(close(fd));
}

/* A procfs that is mounted nowhere, so that nothing covers it: where the host's /proc/sys is read-only, as in a container. */
static int private_procfs(void) {
    int context = (int)syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC), fd = -1;
    if (context < 0)
        return -1;
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    close(context);
    return fd;
}

void step_sysctl(void) {
    int proc = descriptor();
    const char *path = text();
    uint64_t n;
    const char *value = bytes(&n);
    int fd = open_procfs(proc, path, O_WRONLY);
    if (fd < 0 && (errno == EXDEV || errno == EROFS)) {
        int error = errno, own = private_procfs();
        if (own >= 0) {
            fd = open_procfs(own, path, O_WRONLY);
            error = errno;
            close(own);
        }
        errno = error;
    }
    write_all(check(fd), value, n);
}

/* time_namespaces(7): the offsets are written while nobody is in the namespace, so clone(2) would be too early. */
void step_time_offsets(void) {
    int proc = descriptor();
    uint64_t n;
    const char *offsets = bytes(&n);
    check(syscall(SYS_unshare, CLONE_NEWTIME));
    write_all(check(open_procfs(proc, "self/timens_offsets", O_WRONLY)), offsets, n);
    int directory = check(open_procfs(proc, "self/ns", O_PATH | O_DIRECTORY));
    int own = check(openat(directory, "time_for_children", O_RDONLY | O_CLOEXEC));
    check(setns(own, CLONE_NEWTIME));
    close(own);
    close(directory);
}

/* The label that execve(2) gives, in the first of these files that this kernel has. */
void step_label(void) {
    int proc = descriptor(), fd = -1;
    uint64_t n;
    const char *value = bytes(&n);
    errno = ENOENT;
    for (uint64_t count = number(); count; count--) {
        const char *path = text();
        if (fd < 0 && errno == ENOENT)
            fd = open_procfs(proc, path, O_WRONLY);
    }
    write_all(check(fd), value, n);
}

/* ---- by the process itself -------------------------------------------------------------------------------------- */

void step_personality(void) {
    if (personality(number()) == -1)
        failed();
}

void step_memory_policy(void) {
    int mode = (int)number();
    uint64_t n;
    const char *nodes = bytes(&n);
    check(syscall(SYS_set_mempolicy, mode, n ? nodes : NULL, n * 8 + 1)); /* the kernel takes one off */
}
