// SPDX-License-Identifier: Apache-2.0
/* OCI hooks that run in the container's namespaces: createContainer and startContainer. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

enum { MAX_WORDS = 4096, MAX_STATE = 1 << 24 };

/* A file in memory, which never makes its writer wait, as a pipe would that nobody reads. */
static int memory_file(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    return check(fd < 0 && errno == EINVAL ? memfd_create(name, MFD_CLOEXEC) : fd); /* before Linux 6.3 */
}

/* A copy of the state with an offset of its own, at its beginning. */
static int copy_state(int from) {
    static char buffer[4096];
    int to = memory_file("state");
    ssize_t n;
    for (off_t at = 0; at < MAX_STATE && (n = check(pread(from, buffer, sizeof buffer, at))) > 0; at += n)
        if (write(to, buffer, (size_t)n) != n)
            failed_with(EIO);
    check(lseek(to, 0, SEEK_SET));
    return to;
}

static int64_t milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Wait for its end, `timeout` seconds at most unless that is 0. False when the time has passed. */
static int ended_in_time(pid_t pid, int pidfd, uint64_t timeout, int *status) {
    int64_t deadline = milliseconds() + (int64_t)timeout * 1000;
    while (timeout) {
        int64_t rest = deadline - milliseconds();
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        int n = poll(&p, 1, rest < 0 ? 0 : rest > 60000 ? 60000 : (int)rest);
        if (n < 0 && errno != EINTR)
            failed();
        if (n > 0)
            break;
        if (n == 0 && rest <= 60000)
            return 0;
    }
    while (waitpid(pid, status, 0) < 0)
        if (errno != EINTR)
            failed();
    return 1;
}

struct program {
    const char *path, *words[MAX_WORDS + 2], **environment;
    const char *filter;
    uint64_t filter_length;
    unsigned flags;
};

static void words_of(struct program *p) {
    uint64_t counts[2];
    counts[0] = number();
    counts[1] = number();
    const char **to = p->words;
    if (counts[0] > MAX_WORDS || counts[1] > MAX_WORDS - counts[0])
        failed_with(E2BIG);
    for (uint64_t i = 0; i < counts[0]; i++)
        *to++ = text();
    *to++ = NULL;
    p->environment = to;
    for (uint64_t i = 0; i < counts[1]; i++)
        *to++ = text();
    *to = NULL;
}

/* The hook's own process: nothing of the launch reaches it but the state. What fails before execve is a failure of the
 * step, told in the byte that the parent reads; 127 there is no program, as in a shell. */
static _Noreturn void become(const struct program *p, int state, int said, int report) {
    setsid();
    if (!plan.pivoted) /* the launcher's own umask is 0; later it is the container's */
        umask(022);
    if (dup2(state, 0) < 0 || dup2(said, 1) < 0 || dup2(said, 2) < 0 || dup2(report, 3) < 0 || fcntl(3, F_SETFD, FD_CLOEXEC) < 0)
        _exit(127);
    plan.sync_fd = -1; /* a failure below must not pass for the container's own */
    syscall(SYS_close_range, 4, ~0u, 0);
    if (p->filter_length)
        load_filter(p->flags, p->filter, p->filter_length);
    execve(p->path, (char *const *)p->words, (char *const *)p->environment);
    int error = errno;
    if (write(3, &error, sizeof error) < 0)
        _exit(126);
    _exit(127);
}

/* Fail with what the hook said; the code in place of an errno says how it ended, as in steps_hooks.py. */
static _Noreturn void hook_failed(int said, int code) {
    answer(plan.sync_fd, (struct answer){HOOK_SAID, plan.step_number, 0, 0}, said);
    failed_with(code);
}

void step_hook(void) {
    static struct program p;
    int state = descriptor(), status = 0, error = 0, report[2];
    uint64_t timeout = number();
    p.flags = (unsigned)number();
    p.filter = bytes(&p.filter_length);
    p.path = text();
    words_of(&p);
    state = copy_state(state);
    int said = memory_file("said");
    check(pipe2(report, O_CLOEXEC));
    for (int i = 0; i < 2; i++) { /* out of the way of what the hook finds at 0 to 3 */
        int moved = check(fcntl(report[i], F_DUPFD_CLOEXEC, 4));
        close(report[i]);
        report[i] = moved;
    }
    pid_t pid = check(fork());
    if (pid == 0)
        become(&p, state, said, report[1]);
    close(state);
    close(report[1]);
    int pidfd = check(syscall(SYS_pidfd_open, pid, 0));
    if (!ended_in_time(pid, pidfd, timeout, &status)) {
        kill(-pid, SIGKILL); /* its session's first group: what it has started, too */
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        hook_failed(said, ETIMEDOUT);
    }
    close(pidfd);
    ssize_t n = read(report[0], &error, sizeof error);
    close(report[0]);
    if (n == (ssize_t)sizeof error)
        hook_failed(said, error);
    if (status)
        hook_failed(said, HOOK_STATUS | status);
    close(said);
}
