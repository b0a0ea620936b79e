// SPDX-License-Identifier: Apache-2.0
/* The process itself: its hand-shake with launcher and supervisor, its descriptors and streams, and what it becomes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

/* ---- the hand-shake --------------------------------------------------------------------------------------------- */

void step_wait_maps(void) {
    char go;
    ssize_t n;
    do
        n = read(plan.go_fd, &go, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        _exit(125); /* the launcher is gone, or could not write the maps and has said so */
    close(plan.go_fd);
    plan.go_fd = -1;
    struct rlimit files; /* now that the launcher has done all that it does with this process's limits */
    check(getrlimit(RLIMIT_NOFILE, &files));
    files.rlim_cur = plan.soft_files;
    check(setrlimit(RLIMIT_NOFILE, &files));
}

void step_wait_supervisor(void) {
    char go;
    ssize_t n;
    do
        n = read(plan.sync_fd, &go, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1 || go != 'g')
        _exit(125); /* the supervisor is gone, or found a difference and says so itself */
}

/* Everything is as it is before the root changes; the supervisor does what it has to do now, hooks above all. */
void step_hold(void) {
    check(answer(plan.sync_fd, (struct answer){HELD, plan.step_number, 0, 0}, -1));
    step_wait_supervisor();
}

/* OCI's "created": the supervisor of `create` has gone, the one of `start` connects to a socket in the container's directory,
 * which only its owner can reach. One that goes away without its word is no start. */
void step_wait_start(void) {
    int slot = slot_number(), listener = plan.slot[slot];
    char go = 0;
    check(close(plan.sync_fd)); /* its end tells `create` that all went well */
    plan.sync_fd = -1;
    while (go != 'g') {
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            _exit(125); /* nobody is there to be told */
        }
        ssize_t n;
        do
            n = read(connection, &go, 1);
        while (n < 0 && errno == EINTR);
        if (n == 1 && go == 'g')
            plan.sync_fd = connection;
        else
            close(connection);
    }
    put(slot, -1);
}

/* ---- descriptors and streams ------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Close everything above 2 but these. */
static void close_all_but(int *keep, int n) {
    qsort(keep, (size_t)n, sizeof *keep, by_value);
    unsigned from = 3;
    for (int i = 0; i < n; i++) {
        if (keep[i] < 3)
            continue;
        if ((unsigned)keep[i] > from)
            check(syscall(SYS_close_range, from, (unsigned)keep[i] - 1, 0));
        from = (unsigned)keep[i] + 1;
    }
    check(syscall(SYS_close_range, from, ~0u, 0));
}

/* Everything above 2 that is not of this launch goes, before any path is looked at: other containers' pidfds and the like.
 * The step STDIO has put this launch's own over 0 to 2 before. */
void step_close_others(void) {
    int keep[SLOTS + 8], n = 0;
    for (int i = 0; i < plan.slots_used; i++)
        if (plan.slot[i] >= 0)
            keep[n++] = plan.slot[i];
    keep[n++] = plan.sync_fd;
    if (plan.go_fd >= 0)
        keep[n++] = plan.go_fd;
    close_all_but(keep, n);
}

static int is_null(int fd) {
    struct stat s;
    return fstat(fd, &s) == 0 && S_ISCHR(s.st_mode) && s.st_rdev == makedev(1, 3);
}

/* A null device of nobody's, in a tmpfs that is mounted nowhere; -1 where that may not be made, as in a user namespace. */
static int private_null(int access) {
    int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC), mount = -1, null = -1;
    if (fs >= 0 && syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    if (mount >= 0 && mknodat(mount, "null", S_IFCHR | 0666, makedev(1, 3)) == 0)
        null = openat(mount, "null", access | O_CLOEXEC | O_NOCTTY);
    close(mount);
    close(fs);
    return null;
}

/* A null device that came from the host is a file of the host: who owns it inside could chmod it for all the host. The
 * container's own takes its place, or where it has none, or another thing of that name, one that is made for this. */
void own_null(int fd) {
    if (!is_null(fd))
        return;
    int access = fcntl(fd, F_GETFL) & O_ACCMODE;
    int null = open("/dev/null", access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (null >= 0 && is_null(null))
        check(fcntl(null, F_SETFL, 0));
    else {
        close(null);
        null = private_null(access);
    }
    if (null < 0)
        return;
    check(dup3(null, fd, 0));
    close(null);
}

/* A pty of the container's own devpts; its other end goes to the supervisor, which relays. No terminal of the host comes in. */
void step_terminal(void) {
    int dev = descriptor(), to = slot_number();
    uid_t uid = (uid_t)number();
    struct winsize size = {.ws_row = (unsigned short)number()};
    size.ws_col = (unsigned short)number();
    int on_console = (int)number(), unlock = 0;
    int master = check(open_inside(dev, "pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, 0));
    struct stat s;
    check(fstat(master, &s)); /* in a container that runs it may have put anything there */
    if (!S_ISCHR(s.st_mode) || s.st_rdev != makedev(5, 2))
        failed_with(ENODEV);
    check(fcntl(master, F_SETFL, O_RDWR));
    check(ioctl(master, TIOCSPTLCK, &unlock));
    int slave = check(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (size.ws_row && size.ws_col)
        check(ioctl(master, TIOCSWINSZ, &size));
    check(fchown(slave, uid, (gid_t)-1));
    check(answer(plan.sync_fd, (struct answer){TERMINAL_MASTER, plan.step_number, 0, 0}, master));
    close(master);
    put(to, slave);
    if (!on_console)
        return;
    int console = check(ensure(dev, "console", 0, 0600));
    int tree = check(syscall(SYS_open_tree, slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
    attach(tree, console);
    close(tree);
    close(console);
}

void step_stdio(void) {
    for (int i = 0; i < 3; i++) { /* ours are above 2: the launcher's own 0 to 2 were taken when they came, and stay taken */
        uint64_t n = number();
        if (n < SLOTS) { /* else it stays as it is */
            check(dup3(plan.slot[n], i, 0));
            if (plan.pivoted)
                own_null(i);
        }
    }
    int terminal = (int)number();
    if (terminal)
        check(ioctl(0, TIOCSCTTY, 0));
}

/* Pipes made by the container's own root, so that they can belong to any id it has; the other ends go to the supervisor.
 * Then opening /dev/stdout or /proc/self/fd/1 by name works for the program's user, whoever that is. */
void step_own_stdio(void) {
    uid_t uid = (uid_t)number();
    uint64_t which = number();
    for (int i = 0; i < 3; i++) {
        int ends[2];
        if (!(which >> i & 1))
            continue;
        check(pipe2(ends, O_CLOEXEC));
        int mine = i == 0 ? 0 : 1;
        check(fchown(ends[mine], uid, (gid_t)-1));
        check(fchmod(ends[mine], 0666)); /* for a program that changes its user and then opens it by name */
        check(dup3(ends[mine], i, 0));
        check(answer(plan.sync_fd, (struct answer){STREAM, plan.step_number, 0, (uint32_t)i}, ends[!mine]));
        close(ends[0]);
        close(ends[1]);
    }
}

/* Slots from here on outlive PIVOT: the terminal and what comes with the last steps. plan_mounts.TERMINAL_SLOT is the same. */
enum { KEPT_SLOTS = 2000 };

void leave_host(void) {
    plan.pivoted = 1;
    for (int i = 0; i < plan.slots_used && i < KEPT_SLOTS; i++)
        put(i, -1);
    for (int i = 0; i < 3; i++)
        own_null(i);
}

/* A namespace file, or with a pidfd several namespaces of a process at once (setns(2)). With the mount namespace come root and
 * working directory; what was opened before leads back to the host and goes, as with PIVOT. */
void step_join(void) {
    int fd = descriptor(), flags = (int)number();
    check(setns(fd, flags));
    if (flags & CLONE_NEWNS)
        leave_host();
}

/* ---- what it becomes -------------------------------------------------------------------------------------------- */

/* CVE-2024-21626: opened inside the root, never through a magic link, and getcwd must name a place below it. */
void step_working_directory(void) {
    const char *path = text();
    int root = check(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    int fd = check(open_inside(root, path, O_PATH | O_DIRECTORY, 0));
    close(root);
    check(fchdir(fd));
    close(fd);
    static char now[8192];
    if (check(syscall(SYS_getcwd, now, sizeof now)) < 1 || now[0] != '/')
        failed_with(ENOENT);
}

/* Process 1 of the container: reaps, forwards signals, ends with the program. It has the program's filter and privileges. */
static _Noreturn void be_init(pid_t program, const sigset_t *all) {
    for (;;) {
        int status, signal_number;
        pid_t pid;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
            if (pid == program)
                _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
        if (pid < 0 && errno != EINTR)
            _exit(125); /* ECHILD, or a filter that has no wait4 */
        siginfo_t info;
        signal_number = sigwaitinfo(all, &info);
        if (signal_number < 0 && errno != EINTR)
            _exit(125);
        if (signal_number > 0 && signal_number != SIGCHLD)
            kill(program, signal_number);
    }
}

/* Fork. The parent stays as process 1; the program goes on only when that has closed everything and has its filter and its
 * sets. Before, the program could take process 1 over with ptrace(2), or find the host's root in its /proc/1/fd. */
void step_init(void) {
    sigset_t all;
    uint64_t flags = number(), n;
    const char *program = bytes(&n);
    const uint8_t *sets = plan.cursor;
    int gate[2];
    char go = 'g';
    if (plan.limit - plan.cursor < 24)
        failed_with(EBADMSG);
    plan.cursor += 24;
    check(pipe2(gate, O_CLOEXEC));
    sigfillset(&all);
    check(sigprocmask(SIG_SETMASK, &all, NULL));
    pid_t pid = check(fork());
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        close(gate[1]);
        if (read(gate[0], &go, 1) != 1) /* all signals are blocked */
            _exit(125);
        close(gate[0]);
        check(sigprocmask(SIG_SETMASK, &none, NULL));
        return;
    }
    int keep[] = {plan.sync_fd, gate[1]};
    close_all_but(keep, 2);
    if (n)
        load_filter((unsigned)flags, program, n);
    plan.cursor = sets; /* what execve does to the program's sets is done to ours here: never more than the program has */
    step_capabilities();
    check(close(plan.sync_fd)); /* refused by a filter without close(2): then the gate stays shut */
    if (write(gate[1], &go, 1) != 1)
        _exit(125);
    close(gate[1]);
    be_init(pid, &all);
}

static int executable(const char *path) {
    struct stat s;
    if (stat(path, &s) < 0)
        return -1;
    if (!S_ISREG(s.st_mode))
        return errno = EACCES, -1;
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS);
}

/* Look for the program where EXECUTE will, so that `create` can say that there is none. */
void step_find(void) {
    int error = ENOENT;
    for (uint64_t n = number(); n; n--) {
        const char *place = text();
        if (error && executable(place) == 0)
            error = 0;
        else if (error && errno != ENOENT && errno != ENOTDIR)
            error = errno;
    }
    if (error)
        failed_with(error);
}

/* Put descriptors that the caller gives to the program in their places, from 3 on, over whatever is there. */
void step_preserve(void) {
    int first = slot_number(), count = (int)number();
    int *from = plan.slot + first;
    if (count < 0 || count > SLOTS - first)
        failed_with(EBADMSG);
    for (int i = 0; i < count; i++) { /* out of the way of their places first */
        int moved = check(fcntl(from[i], F_DUPFD_CLOEXEC, 3 + count));
        put(first + i, moved);
    }
    if (plan.sync_fd >= 3 && plan.sync_fd < 3 + count) {
        int moved = check(fcntl(plan.sync_fd, F_DUPFD_CLOEXEC, 3 + count));
        close(plan.sync_fd);
        plan.sync_fd = moved;
    }
    for (int i = 0; i < count; i++)
        check(dup2(from[i], 3 + i));
}

void step_execute(void) {
    static const char *words[65536], *places[256];
    uint64_t counts[3];
    const char **to = words;
    for (int i = 0; i < 3; i++)
        counts[i] = number();
    if (counts[0] > 255 || counts[1] < 1 || counts[1] > 65530 || counts[2] > 65530 - counts[1])
        failed_with(E2BIG);
    for (uint64_t i = 0; i < counts[0]; i++)
        places[i] = text();
    for (uint64_t i = 0; i < counts[1]; i++)
        *to++ = text();
    *to++ = NULL;
    const char **environment = to;
    for (uint64_t i = 0; i < counts[2]; i++)
        *to++ = text();
    *to = NULL;
    int error = ENOENT;
    for (uint64_t i = 0; i < counts[0]; i++) {
        execve(places[i], (char *const *)words, (char *const *)environment);
        if (errno != ENOENT && errno != ENOTDIR)
            error = errno;
    }
    failed_with(error);
}
