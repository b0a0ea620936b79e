// SPDX-License-Identifier: Apache-2.0
/*
 * The launcher: walks a plan that Python made. Python decides, this program acts.
 *
 * It is executed once per Python process from a sealed memfd with the control socket as descriptor 0. Each packet on that
 * socket is one launch: a header, two lists of steps, and by SCM_RIGHTS the descriptors that the steps speak of. The first
 * list is walked here (clone, cgroup membership, id maps), the second by the new process, which ends in execve. A step has
 * no decision in it beyond what only the kernel can answer at that moment.
 *
 * The new process is a child of Python (CLONE_PARENT), so Python waits for it as for any other. This process keeps a pidfd
 * of each: when the control socket closes, because Python ended or was killed, it kills them all. The payload can clear its
 * parent-death signal (prctl(2), or any change of credentials); it cannot reach this process. Where the end of the first
 * process is not the end of all, because the container has no PID namespace of its own, it also keeps the directories of its
 * control groups (step GUARD) and kills what is in them when the first process ends, or Python.
 *
 * The same program stays in the container as its init where one was asked for (step INIT).
 *
 * Here is the launcher itself. What all share is in plan.h, the steps of the new process in the files that steps.h names.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "groups.h"
#include "plan.h"
#include "steps.h"

enum { MAX_CHILDREN = 16384 };

static struct pollfd children[MAX_CHILDREN + 1]; /* the control socket, then a pidfd each */
static int guards[MAX_CHILDREN + 1][GUARDS];     /* directories of control groups, -1 for none */
static int child_count;

/* ---- what is done from outside the new process ------------------------------------------------------------------ */

void proc_path(char path[64], pid_t pid, const char *name) {
    char digits[12];
    int n = 0;
    size_t at = 6;
    memcpy(path, "/proc/", at);
    for (pid_t p = pid; p; p /= 10)
        digits[n++] = (char)('0' + p % 10);
    while (n)
        path[at++] = digits[--n];
    if (!pid) {
        memcpy(path + at, "self", 4);
        at += 4;
    }
    path[at++] = '/';
    strcpy(path + at, name);
}

int write_proc(pid_t pid, const char *name, const char *value) {
    char path[64];
    proc_path(path, pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t done = write(fd, value, strlen(value));
    int error = done < 0 ? errno : EIO;
    close(fd);
    return done == (ssize_t)strlen(value) ? 0 : (errno = error, -1);
}

static pid_t clone_child(uint64_t flags, int cgroup, int *pidfd) {
    struct clone_args a = {.flags = flags | CLONE_PARENT | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)pidfd};
    if (cgroup >= 0) {
        a.flags |= CLONE_INTO_CGROUP;
        a.cgroup = (uint64_t)cgroup;
    }
    return (pid_t)syscall(SYS_clone3, &a, sizeof a);
}

/* Write the pid into a cgroup.procs that the supervisor opened. */
static int place(int fd, pid_t pid) {
    char digits[12];
    int n = (int)sizeof digits;
    for (pid_t p = pid; p; p /= 10)
        digits[--n] = (char)('0' + p % 10);
    return write(fd, digits + n, sizeof digits - (size_t)n) < 0 ? -1 : 0;
}

/* ---- the containers that run ------------------------------------------------------------------------------------ */

struct launched {
    pid_t pid;
    int pidfd, go[2], guards[GUARDS];
};

/* Keep the directory of a control group for as long as this process lives and the first one of the container does. */
static int guard(struct launched *l, int directory) {
    for (int i = 0; i < GUARDS; i++)
        if (l->guards[i] < 0)
            return l->guards[i] = fcntl(directory, F_DUPFD_CLOEXEC, 3);
    return errno = E2BIG, -1;
}

static void remember(const struct launched *l) {
    children[++child_count] = (struct pollfd){.fd = l->pidfd, .events = POLLIN};
    memcpy(guards[child_count], l->guards, sizeof l->guards);
}

static void forget(int i) {
    close(children[i].fd);
    kill_groups(guards[i]);
    children[i] = children[child_count];
    memcpy(guards[i], guards[child_count--], sizeof guards[i]);
}

/* Nothing that this process guards outlives it. */
void kill_all(void) {
    for (int i = 1; i <= child_count; i++)
        syscall(SYS_pidfd_send_signal, children[i].fd, SIGKILL, NULL, 0);
    for (int i = 1; i <= child_count; i++)
        kill_groups(guards[i]);
}

/* ---- a launch --------------------------------------------------------------------------------------------------- */

/* One step of the first list. Errors come back as -1 with errno, as the process that failed is not the container. */
static int parent_step(uint32_t op, struct launched *l, const uint8_t *child_from, const uint8_t *child_to, uint32_t steps) {
    if (op == OP_CLONE) {
        uint64_t flags = number(), cgroup = number();
        if (child_count == MAX_CHILDREN) /* one that can't be remembered would outlive its supervisor */
            return errno = EAGAIN, -1;
        int group = cgroup < SLOTS ? plan.slot[cgroup] : -1;
        l->pid = clone_child(flags, group, &l->pidfd);
        if (l->pid == 0) {
            plan.in_child = 1;
            plan.go_fd = l->go[0];
            close(l->go[1]);
            plan.step_number = steps;
            walk(child_from, child_to);
        }
        return l->pid < 0 ? -1 : 0;
    }
    if (op == OP_JOIN_FIRST) { /* the namespaces in which it is cloned; this launcher serves no other launch after that */
        int fd = descriptor(), flags = (int)number();
        if (flags & CLONE_NEWNS && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) /* the clone inherits that, until its step */
            return -1;
        if (setns(fd, flags) < 0)
            return -1;
        if (flags & CLONE_NEWNS) { /* what the clone inherits must not lead back: someone in there may look at it at once */
            plan.pivoted = 1;
            for (int i = 1; i < 3; i++)
                own_null(i);
            for (int i = 0; i < plan.slots_used; i++)
                if (plan.slot[i] >= 0)
                    own_null(plan.slot[i]);
        }
        return 0;
    }
    if (op == OP_GUARD)
        return guard(l, descriptor()) < 0 ? -1 : 0;
    if (op == OP_PLACE)
        return place(descriptor(), l->pid);
    if (op == OP_WRITE_MAPS) {
        const char *uids = text(), *gids = text();
        if (number() && write_proc(l->pid, "setgroups", "deny") < 0)
            return -1;
        return write_proc(l->pid, "uid_map", uids) < 0 || write_proc(l->pid, "gid_map", gids) < 0 ? -1 : 0;
    }
    if (op == OP_IDMAP)
        return idmap(l->pid);
    return outside_step(op, l->pid > 0 ? l->pid : 0);
}

static void launch(const uint8_t *steps, const struct header *h) {
    struct launched l = {.pid = -1, .pidfd = -1, .go = {-1, -1}, .guards = {-1, -1}};
    const uint8_t *end = steps + h->length, *from = steps + h->parent_steps;
    uint32_t op;
    const uint8_t *next;
    plan.step_number = 0;
    plan.cursor = steps;
    plan.limit = from;
    int failed_step = pipe2(l.go, O_CLOEXEC) < 0;
    while (!failed_step && next_step(&op, &next)) {
        const uint8_t *all = plan.limit;
        plan.limit = next;
        failed_step = parent_step(op, &l, from, end, h->child_steps) < 0;
        plan.cursor = next;
        plan.limit = all;
        plan.step_number += !failed_step;
    }
    if (failed_step) {
        int error = errno;
        if (l.pidfd >= 0)
            syscall(SYS_pidfd_send_signal, l.pidfd, SIGKILL, NULL, 0);
        answer(plan.sync_fd, (struct answer){FAILED, plan.step_number, error, l.pid > 0 ? (uint32_t)l.pid : 0}, l.pidfd);
        close(l.pidfd);
        kill_groups(l.guards);
    } else {
        remember(&l);
        answer(plan.sync_fd, (struct answer){CLONED, plan.step_number, 0, (uint32_t)l.pid}, l.pidfd);
        if (write(l.go[1], "g", 1) < 0)
            syscall(SYS_pidfd_send_signal, l.pidfd, SIGKILL, NULL, 0);
    }
    close(l.go[0]);
    close(l.go[1]);
}

/* Take one packet: the header and steps in the packet, or in a memfd when they are longer than a packet can be. */
static int serve(int control) {
    static uint8_t packet[MAX_PACKET];
    int received[256], count;
    static ssize_t before;
    ssize_t n = receive(control, packet, sizeof packet, received, &count);
    if (n < 0)
        return errno == EAGAIN;
    if (n < before) /* of a longer plan, with another container's environment: an init keeps this memory */
        memset(packet + n, 0, (size_t)(before - n));
    before = n;
    struct header h;
    uint32_t release;
    if (n == (ssize_t)sizeof release && memcpy(&release, packet, sizeof release) && release == RELEASE)
        _exit(0); /* they are left alone: OCI's `create` has done its part and goes */
    if (n < (ssize_t)sizeof h)
        return 0;
    memcpy(&h, packet, sizeof h);
    uint64_t expected = (uint64_t)h.descriptors + 1 + (h.in_memfd ? 1 : 0);
    if (h.magic != MAGIC || (uint64_t)count != expected || h.parent_steps > h.length)
        return 0;
    const uint8_t *steps = packet + sizeof h;
    void *mapped = MAP_FAILED;
    plan.sync_fd = received[0];
    if (h.in_memfd) {
        mapped = map_steps(received[1], h.length);
        if (mapped == MAP_FAILED)
            return 0;
        steps = mapped;
    } else if ((size_t)n != sizeof h + h.length)
        return 0;
    for (int i = 0; i < SLOTS; i++)
        plan.slot[i] = -1;
    int brought = plan.slots_used = (int)h.descriptors;
    memcpy(plan.slot, received + count - h.descriptors, h.descriptors * sizeof(int));
    launch(steps, &h);
    if (mapped != MAP_FAILED)
        munmap(mapped, h.length);
    for (int i = brought; i < plan.slots_used; i++)
        put(i, -1);
    for (int i = 0; i < count; i++)
        close(received[i]);
    return 1;
}

int main(void) {
    sigset_t none;
    sigemptyset(&none);
    for (int s = 1; s < NSIG; s++) /* the interpreter ignores SIGPIPE; no program in a container should inherit that */
        signal(s, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_NAME, "stockade-init", 0, 0, 0);
    umask(0);
    syscall(SYS_close_range, 3, ~0u, 0); /* what the caller's own caller left open is nobody's business in a container */
    if (chdir("/") < 0) /* the caller's working directory stays the caller's */
        return 1;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    plan.soft_files = files.rlim_cur;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    children[0] = (struct pollfd){.fd = 0, .events = POLLIN};
    for (;;) {
        if (poll(children, (nfds_t)child_count + 1, -1) < 0 && errno != EINTR)
            return 1;
        for (int i = child_count; i > 0; i--)
            if (children[i].revents) /* ended: a pidfd is readable then */
                forget(i);
        if (children[0].revents & POLLIN) {
            if (!serve(0))
                break;
        } else if (children[0].revents)
            break;
    }
    kill_all();
    return 0;
}
