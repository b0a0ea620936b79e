// SPDX-License-Identifier: Apache-2.0
/* start, state, kill and delete of a container about which there is nothing special. sandbox/runtime does the same, and more. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "front.h"

/* milliseconds: what takes longer is seldom, and Python waits on */
enum { PATIENCE = 2000, GROUP_TRIES = 25 };

static const char SOCKET[] = "start.sock";

/* ---- the first process ------------------------------------------------------------------------------------------- */

/* Whether the first process is there: neither ended nor a later one with its pid, proc(5). */
static int alive(const struct record *r) {
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)r->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    char *word = strrchr(text, ')'); /* a program can put anything into its name */
    if (!word || word[1] != ' ' || word[2] == 'Z' || word[2] == 'X')
        return 0;
    word += 2;
    for (int field = 3; field < 22; field++) {
        word = strchr(word, ' ');
        if (!word)
            return 0;
        word++;
    }
    return strtoull(word, NULL, 10) == r->start;
}

/* A pidfd of it, or -1 when it has ended. Looked at after the open, so that it is of the process that we know. */
static int pidfd_of(const struct record *r) {
    int fd = (int)syscall(SYS_pidfd_open, r->pid, 0);
    if (fd >= 0 && !alive(r)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- its groups -------------------------------------------------------------------------------------------------- */

/* The path of a group, or of a file in it, ended by zero. */
static int group_path(char path[4096], struct slice directory, const char *file) {
    int n = snprintf(path, 4096, "%.*s%s%s", (int)directory.length, directory.text, *file ? "/" : "", file);
    return n > 0 && n < 4096;
}

static int begins(const char *path, const char *word) {
    char text[16] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && !strncmp(text, word, strlen(word));
}

static int names_freezer(struct slice names) {
    const char *word = names.text, *end = names.text + names.length;
    while (word < end) {
        const char *comma = memchr(word, ',', (size_t)(end - word));
        size_t n = (size_t)((comma ? comma : end) - word);
        if (n == 7 && !memcmp(word, "freezer", 7))
            return 1;
        word += n + 1;
    }
    return 0;
}

static int frozen(const struct record *r) {
    char path[4096];
    for (int i = 0; i < r->groups; i++) {
        int found = -1;
        if (r->names[i].length && !names_freezer(r->names[i]))
            continue;
        if (group_path(path, r->paths[i], "freezer.state"))
            found = begins(path, "FROZEN");
        if (found < 0 && group_path(path, r->paths[i], "cgroup.freeze"))
            found = begins(path, "1");
        if (found > 0)
            return 1;
    }
    return 0;
}

/* Whether there are groups in a group: each counts as a link to its directory. */
static int holds_groups(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && s.st_nlink > 2;
}

/* Remove the groups, which are empty when no process is left; a moment after the last one they still are not. */
static int remove_groups(const struct record *r) {
    char path[4096];
    for (int i = 0; i < r->groups; i++) {
        if (!group_path(path, r->paths[i], ""))
            return 0;
        for (int tries = 0; rmdir(path) < 0 && errno != ENOENT; tries++) {
            if (errno != EBUSY || tries == GROUP_TRIES || holds_groups(path))
                return 0;
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
    return 1;
}

/* ---- the commands ------------------------------------------------------------------------------------------------ */

/* Whether it still is the launcher's program: a killed `start` leaves the socket of what runs. */
static int waits(const struct record *r) {
    char path[32], program[64] = "";
    snprintf(path, sizeof path, "/proc/%d/exe", (int)r->pid);
    return readlink(path, program, sizeof program - 1) < 0 || !strncmp(program, "/memfd:stockade-init", 20);
}

static const char *status(int directory, const struct record *r) {
    struct stat s;
    if (!alive(r))
        return "stopped";
    if (frozen(r))
        return "paused";
    return fstatat(directory, SOCKET, &s, AT_SYMLINK_NOFOLLOW) == 0 && waits(r) ? "created" : "running";
}

int do_start(int directory, const struct record *r, int *connection) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char byte;
    if (!r->plain || strcmp(status(directory, r), "created") != 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* by the descriptor: sun_path holds 107 bytes */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", directory, SOCKET);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -1;
    if (send(fd, "g", 1, MSG_NOSIGNAL) != 1)
        return -1;
    ssize_t n;
    do
        n = recv(fd, &byte, 1, MSG_PEEK);
    while (n < 0 && errno == EINTR);
    if (n > 0) { /* a failure, what a hook has said, or a filter's listener: all of them Python's */
        *connection = fd;
        return -1;
    }
    close(fd);
    if (n < 0) /* ECONNRESET: it was killed before it had read the word. Python asks again and hears the same */
        return -1;
    return unlinkat(directory, SOCKET, 0) < 0 && errno != ENOENT ? -1 : 0;
}

/* A document that is made in memory and written at once. */
static char shown[MAX_STATE + 1024];
static size_t length;

static int put(const char *text, size_t n) {
    if (n > sizeof shown - length)
        return 0;
    memcpy(shown + length, text, n);
    length += n;
    return 1;
}

static int member(const char *name, struct slice value) {
    return put(name, strlen(name)) && put(value.text, value.length);
}

int do_state(int directory, const struct record *r, const char *identity) {
    const char *word = status(directory, r);
    char own[512];
    int n = snprintf(own, sizeof own, "\"%s\",\"pid\":%d,\"status\":\"%s\"", identity,
                     strcmp(word, "stopped") == 0 ? 0 : (int)r->pid, word);
    if (n >= (int)sizeof own || !member("{\"ociVersion\":", r->version) ||
        !member(",\"id\":", (struct slice){own, (size_t)n}) || !member(",\"bundle\":", r->bundle) ||
        !member(",\"rootfs\":", r->rootfs) || !member(",\"created\":", r->created) ||
        !member(",\"owner\":\"\",\"annotations\":", r->annotations) || !put("}\n", 2))
        return -1;
    void (*before)(int) = signal(SIGPIPE, SIG_IGN); /* Python tells of a reader that has gone */
    size_t written = 0;
    while (written < length) {
        ssize_t more = write(1, shown + written, length - written);
        if (more < 0 && errno == EINTR)
            continue;
        if (more < 0)
            break;
        written += (size_t)more;
    }
    signal(SIGPIPE, before);
    return written == length ? 0 : written ? 1 : -1;
}

static int signal_number(const char *word) {
    static const struct {
        const char *name;
        int number;
    } known[] = {{"TERM", SIGTERM}, {"KILL", SIGKILL}, {"INT", SIGINT},   {"HUP", SIGHUP},   {"QUIT", SIGQUIT},
                 {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"STOP", SIGSTOP}, {"CONT", SIGCONT}, {"WINCH", SIGWINCH}};
    if (!word)
        return SIGTERM;
    if (*word >= '1' && *word <= '9') {
        char *end;
        long n = strtol(word, &end, 10);
        return *end || n > 64 ? -1 : (int)n;
    }
    if (!strncmp(word, "SIG", 3))
        word += 3;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(word, known[i].name))
            return known[i].number;
    return -1;
}

int do_kill(const struct record *r, const char *word) {
    int number = signal_number(word), fd = number < 0 ? -1 : pidfd_of(r);
    if (fd < 0)
        return -1;
    int sent = (int)syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
    close(fd);
    return sent < 0 ? -1 : 0;
}

/* Kill the first process and wait for its end, with which that of a PID namespace ends. */
static int ended(const struct record *r) {
    int fd = pidfd_of(r);
    if (fd < 0)
        return !alive(r);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int gone = syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0 && poll(&p, 1, PATIENCE) == 1;
    close(fd);
    return gone;
}

static int remove_directory(int root, int directory, const char *identity) {
    int listing = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = listing < 0 ? NULL : fdopendir(listing);
    if (!d)
        return 0;
    int good = 1;
    for (struct dirent *e; good && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            good = unlinkat(directory, e->d_name, 0) == 0;
    closedir(d);
    return good && unlinkat(root, identity, AT_REMOVEDIR) == 0;
}

int do_delete(int root, int directory, const struct record *r, const struct request *q) {
    const char *word = status(directory, r);
    if (!r->plain || !strcmp(word, "paused") || (!strcmp(word, "running") && !q->force))
        return -1;
    if (!ended(r) || !remove_groups(r))
        return -1;
    return remove_directory(root, directory, q->identity) ? 0 : -1;
}
