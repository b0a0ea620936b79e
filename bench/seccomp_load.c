// SPDX-License-Identifier: Apache-2.0
/*
 * What it costs to load a filter: seccomp(2) in a fresh child for each measurement, so that none sees another's filters.
 * usage: seccomp_load FILTER. Each number on stdin asks for so many; each answers with a line, its nanoseconds.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(int argc, char *argv[]) {
    static char program[1 << 20];
    FILE *file = argc == 2 ? fopen(argv[1], "re") : NULL;
    if (!file)
        return 2;
    size_t length = fread(program, 1, sizeof program, file);
    fclose(file);
    struct sock_fprog filter = {.len = (unsigned short)(length / 8), .filter = (struct sock_filter *)(void *)program};
    int count, status, ends[2];
    while (scanf("%d", &count) == 1) {
        while (count-- > 0) {
            long long took = -1;
            if (pipe(ends) < 0)
                return 1;
            pid_t pid = fork();
            if (pid == 0) { /* a pipe was made before: write(2) and exit_group(2) are allowed by any profile that runs programs */
                prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                long long before = now();
                long failed = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
                took = failed ? -1 : now() - before;
                _exit(write(ends[1], &took, sizeof took) != sizeof took);
            }
            close(ends[1]);
            if (read(ends[0], &took, sizeof took) != sizeof took || took < 0)
                return 1;
            close(ends[0]);
            waitpid(pid, &status, 0);
            printf("%lld\n", took);
        }
        fflush(stdout);
    }
    return 0;
}
