// SPDX-License-Identifier: Apache-2.0
/* Control groups whose processes must end with the first one of the container (step GUARD). */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "groups.h"

enum { KILL_ROUNDS = 1000 };

static int write_in(int directory, const char *name, const char *value) {
    int fd = openat(directory, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t done = write(fd, value, strlen(value));
    close(fd);
    return done < 0 ? -1 : 0;
}

static void pause_for(long milliseconds) {
    struct timespec t = {0, milliseconds * 1000000};
    nanosleep(&t, NULL);
}

/* A v1 group stands still while it is signalled, so that a fork bomb can't outrun the signals. A task in uninterruptible
 * sleep holds that up, so it is not waited for long; the next round comes anyway. */
static void freeze(int directory) {
    for (int tries = 0; tries < 50; tries++) {
        char state[16] = "";
        if (write_in(directory, "freezer.state", "FROZEN") < 0)
            return;
        int fd = openat(directory, "freezer.state", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return;
        ssize_t n = read(fd, state, sizeof state - 1);
        close(fd);
        if (n > 0 && strncmp(state, "FROZEN", 6) == 0)
            return;
        pause_for(1);
    }
}

/* Kill the processes of one group: how many there were. 0 stands for one that is not seen from our PID namespace. */
static int kill_members(int directory) {
    static char buffer[65536];
    int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC), count = 0;
    if (fd < 0)
        return 0;
    long pid = 0;
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        for (ssize_t i = 0; i < n; i++)
            if (buffer[i] >= '0' && buffer[i] <= '9')
                pid = pid * 10 + buffer[i] - '0';
            else {
                if (pid > 1 && pid != getpid())
                    count += kill((pid_t)pid, SIGKILL) == 0;
                pid = 0;
            }
    close(fd);
    return count;
}

/* The same for a group and all groups in it; a privileged payload may have made some. */
static int kill_tree(int directory, int depth) {
    int count = kill_members(directory), fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    if (!listing) {
        close(fd);
        return count;
    }
    for (struct dirent *entry; depth && (entry = readdir(listing));)
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
            int below = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) {
                count += kill_tree(below, depth - 1);
                close(below);
            }
        }
    closedir(listing);
    return count;
}

/* Empty a group. cgroup.kill (v2, Linux 5.14) is one word that no fork escapes; elsewhere in rounds, until none is left. */
static void kill_group(int directory) {
    if (write_in(directory, "cgroup.kill", "1") == 0)
        return;
    for (int round = 0; round < KILL_ROUNDS; round++) {
        freeze(directory);
        int count = kill_tree(directory, 64);
        write_in(directory, "freezer.state", "THAWED");
        if (!count)
            return;
        pause_for(2);
    }
}

void kill_groups(int groups[GUARDS]) {
    for (int i = 0; i < GUARDS; i++)
        if (groups[i] >= 0) {
            kill_group(groups[i]);
            close(groups[i]);
            groups[i] = -1;
        }
}
