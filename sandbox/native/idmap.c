// SPDX-License-Identifier: Apache-2.0
/* Id-mapped mounts (Linux 5.12): a detached tree whose owners are shifted by the map of a user namespace. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plan.h"

static int open_namespace(pid_t pid) {
    char path[64];
    proc_path(path, pid, "ns/user");
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* A user namespace that is only a map: a process holds it until it is written and open. */
static int namespace_of(const char *uids, const char *gids) {
    struct clone_args a = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    pid_t pid = (pid_t)syscall(SYS_clone3, &a, sizeof a);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        for (;;)
            pause();
    }
    if (pid < 0)
        return -1;
    int fd = write_proc(pid, "uid_map", uids) < 0 || write_proc(pid, "gid_map", gids) < 0 ? -1 : open_namespace(pid);
    int error = errno;
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return errno = error, fd;
}

/* Shift by the maps of the step, or where it has none by those of the new process. That has the same open file of the tree. */
int idmap(pid_t pid) {
    int tree = descriptor();
    const char *uids = text(), *gids = text();
    unsigned recursive = number() ? AT_RECURSIVE : 0;
    int fd = *uids ? namespace_of(uids, gids) : open_namespace(pid);
    if (fd < 0)
        return -1;
    struct mount_attr a = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)fd};
    int result = (int)syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | recursive, &a, sizeof a), error = errno;
    close(fd);
    return errno = error, result;
}
