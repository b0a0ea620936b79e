// SPDX-License-Identifier: Apache-2.0
/* What can be waited for beforehand. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "front.h"

enum { TIMES = 16, PAUSE = 3000000 /* nanoseconds: a grace period takes longer */ };

static const char FREEZER[] = "/sys/fs/cgroup/freezer";

/* The first process that is put into a control group of v1 after a pause waits for a grace period of RCU, some 10 ms: the kernel's
 * cgroup_threadgroup_rwsem is a percpu_rw_semaphore, and cgroup_mutex is held meanwhile, so that not even a group can be made.
 * Nor does the next one within such a period wait. So a process that does nothing else moves itself from its group to the same
 * group while the interpreter starts and the container is made, again and again so that no pause begins, and ends. Without v1,
 * or without the right to, there is nothing to be quicker about. */
void warm_groups(void) {
    char text[8192], path[8448];
    pid_t parent = getpid();
    if (access(FREEZER, F_OK) < 0 || fork() != 0)
        return;
    syscall(SYS_close_range, 0, ~0u, 0); /* whoever reads our streams must not wait for this one */
    int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *names = strchr(line, ':'), *place = names ? strchr(names + 1, ':') : NULL;
        if (!place || strncmp(names, ":freezer:", 9) != 0 || strstr(place, ".."))
            continue;
        snprintf(path, sizeof path, "%s%s/cgroup.procs", FREEZER, place + 1);
        int procs = open(path, O_WRONLY | O_CLOEXEC);
        for (int i = 0; i < TIMES && procs >= 0 && getppid() == parent && write(procs, "0", 1) == 1; i++)
            nanosleep(&(struct timespec){.tv_nsec = PAUSE}, NULL);
        break;
    }
    _exit(0);
}
