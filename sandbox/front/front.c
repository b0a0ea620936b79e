// SPDX-License-Identifier: Apache-2.0
/*
 * The command stockade-runtime: the words and the container's directory.
 *
 * Python takes longer to start than all of crun's `start`, `kill` and `delete`, which an engine calls for each container. So
 * these few, in their usual forms, are done here. There is one place for every error, every log line and every rare case,
 * and it is not this one: whatever is not plain goes to Python, from the beginning.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "front.h"

static const char DEFAULT_ROOT[] = "/run/stockade-runtime";
static const char ALLOWED[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.";

/* ---- the words --------------------------------------------------------------------------------------------------- */

/* The value of an option in either form, or NULL; `i` moves past it. */
static const char *value_of(char **argv, int *i, const char *name) {
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0)
        return NULL;
    if (argv[*i][n] == '=')
        return argv[*i] + n + 1;
    return !argv[*i][n] && argv[*i + 1] ? argv[++*i] : NULL;
}

static int one_of(const char *word, const char *const *known) {
    for (; *known; known++)
        if (!strcmp(word, *known))
            return 1;
    return 0;
}

/* Options before the command. What is written down says how the groups were made, so nobody here asks for the manager. */
static int globals(char **argv, struct request *q) {
    static const char *const forms[] = {"text", "json", NULL};
    static const char *const managers[] = {"cgroupfs", "systemd", "disabled", NULL};
    int i = 1;
    for (; argv[i] && argv[i][0] == '-'; i++) {
        const char *value;
        if (!strcmp(argv[i], "--systemd-cgroup"))
            continue;
        if ((value = value_of(argv, &i, "--root"))) {
            q->root = value;
        } else if ((value = value_of(argv, &i, "--log"))) {
            q->log = value;
        } else if ((value = value_of(argv, &i, "--log-format"))) {
            if (!one_of(value, forms))
                return 0;
        } else if (!(value = value_of(argv, &i, "--cgroup-manager")) || !one_of(value, managers)) {
            return 0;
        }
    }
    return argv[i] ? i : 0;
}

static int understood(char **argv, struct request *q) {
    int i = globals(argv, q);
    if (!i)
        return 0;
    q->command = argv[i++];
    int deletes = !strcmp(q->command, "delete"), kills = !strcmp(q->command, "kill");
    if (!deletes && !kills && strcmp(q->command, "start") != 0 && strcmp(q->command, "state") != 0)
        return 0;
    if (deletes && argv[i] && (!strcmp(argv[i], "--force") || !strcmp(argv[i], "-f"))) {
        q->force = 1;
        i++;
    }
    q->identity = argv[i];
    if (!q->identity || *q->identity == '-' || *q->identity == '.' || !*q->identity)
        return 0;
    if (strlen(q->identity) > 255 || strspn(q->identity, ALLOWED) != strlen(q->identity))
        return 0;
    i++;
    if (kills && argv[i])
        q->signal = argv[i++];
    return !argv[i];
}

/* ---- the directory ----------------------------------------------------------------------------------------------- */

/* Root of the machine and of no other user namespace. */
static int first_user_namespace(void) {
    char text[64] = "";
    int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && !strcmp(text, "         0          0 4294967295\n");
}

/* Where containers are unless --root says it, as arguments.py has it. */
static const char *default_root(void) {
    static char path[4096];
    const char *own = getenv("XDG_RUNTIME_DIR");
    uid_t uid = geteuid();
    if (uid == 0 && (first_user_namespace() || !own || *own != '/'))
        return DEFAULT_ROOT;
    int n = own && *own == '/' ? snprintf(path, sizeof path, "%s/stockade-runtime", own)
                               : snprintf(path, sizeof path, "/run/user/%u/stockade-runtime", uid);
    return n < (int)sizeof path ? path : "";
}

/* Python takes ".." out of a path by its words alone, which links make another place. */
static int goes_up(const char *path) {
    for (const char *at = path; (at = strstr(at, "/..")); at += 3)
        if (!at[3] || at[3] == '/')
            return 1;
    return 0;
}

/* ROOT, ours alone. */
static int open_root(const char *path) {
    struct stat s;
    if (!path || !*path)
        path = default_root();
    if (*path != '/' || goes_up(path))
        return -1;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &s) < 0 || s.st_uid != geteuid() || s.st_mode & 022)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The log is there from the beginning, or nothing is done; errors alone are written to it, which is Python's part. */
static int open_log(const char *path) {
    umask((umask(022) & 077) | 022); /* the mask of main.py, which comes to the same when it is asked for twice */
    return !path || !*path || open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC, 0644) >= 0;
}

/* Lock a container for a change; whoever had the lock may have removed the directory, and another have made it anew. */
static int lock_container(int root, int directory, const char *identity) {
    struct stat ours, named;
    return flock(directory, LOCK_EX) == 0 && fstat(directory, &ours) == 0 &&
           fstatat(root, identity, &named, AT_SYMLINK_NOFOLLOW) == 0 && ours.st_dev == named.st_dev &&
           ours.st_ino == named.st_ino;
}

static int done(const struct request *q, int *connection) {
    struct record r;
    int changes = strcmp(q->command, "start") == 0 || strcmp(q->command, "delete") == 0;
    int root = open_log(q->log) ? open_root(q->root) : -1;
    if (root < 0)
        return -1;
    int directory = openat(root, q->identity, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        return errno == ENOENT && q->force ? 0 : -1;
    if (changes && !lock_container(root, directory, q->identity))
        return -1;
    if (!read_record(directory, &r) || r.pid <= 0)
        return -1;
    if (!strcmp(q->command, "start"))
        return do_start(directory, &r, connection);
    if (!strcmp(q->command, "state"))
        return do_state(directory, &r, q->identity);
    if (!strcmp(q->command, "kill"))
        return do_kill(&r, q->signal);
    return do_delete(root, directory, &r, q);
}

int main(int argc, char **argv) {
    struct request q = {0};
    int connection = -1;
    if (argc < 1)
        return 1;
    for (int fd = 0; fd < 3; fd++) /* a descriptor of ours must not become a standard stream */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            return 1;
    int code = understood(argv, &q) ? done(&q, &connection) : -1;
    if (code >= 0)
        return code;
    if (q.command && (!strcmp(q.command, "create") || !strcmp(q.command, "run") || !strcmp(q.command, "exec")))
        warm_groups();
    become_python(argv, connection);
}
