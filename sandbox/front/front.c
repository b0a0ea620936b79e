// SPDX-License-Identifier: Apache-2.0
/*
 * The command stockade-runtime: the words, the container's directory, and how Python is found.
 *
 * Python takes longer to start than all of crun's `start`, `kill` and `delete`, which an engine calls for each container. So
 * these few, in their usual forms, are done here. There is one place for every error, every log line and every rare case,
 * and it is not this one: whatever is not plain goes to Python, from the beginning.
 */
#define _GNU_SOURCE
#include <dirent.h>
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

/* Options before the command. The log is Python's: what is done here fails in no way that belongs there. */
static int globals(char **argv, struct request *q) {
    int i = 1;
    for (; argv[i] && argv[i][0] == '-'; i++) {
        const char *root = value_of(argv, &i, "--root");
        if (root)
            q->root = root;
        else if (strcmp(argv[i], "--systemd-cgroup") != 0 && !value_of(argv, &i, "--log") &&
                 !value_of(argv, &i, "--log-format") && !value_of(argv, &i, "--cgroup-manager"))
            return 0;
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

/* Only root of the machine has a root directory that needs no look at the environment. */
static int first_user_namespace(void) {
    char text[64] = "";
    int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && !strcmp(text, "         0          0 4294967295\n");
}

/* ROOT, ours alone. */
static int open_root(const char *path) {
    struct stat s;
    if (!path) {
        if (geteuid() != 0 || !first_user_namespace())
            return -1;
        path = DEFAULT_ROOT;
    }
    if (*path != '/')
        return -1;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &s) < 0 || s.st_uid != geteuid() || s.st_mode & 022)) {
        close(fd);
        return -1;
    }
    return fd;
}

static int done(const struct request *q, int *connection) {
    struct record r;
    struct stat s;
    int changes = strcmp(q->command, "start") == 0 || strcmp(q->command, "delete") == 0;
    int root = open_root(q->root);
    if (root < 0)
        return -1;
    int directory = openat(root, q->identity, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        return errno == ENOENT && q->force ? 0 : -1;
    if (changes && (flock(directory, LOCK_EX) < 0 || fstat(directory, &s) < 0 || s.st_nlink == 0))
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

/* ---- Python ------------------------------------------------------------------------------------------------------ */

static char interpreter[4096], boot[8192];

/* The interpreter in the first lines of a script that pip or uv has written: #!PATH, or for long paths a line of sh. */
static int read_shebang(const char *script) {
    char text[8192] = "";
    int fd = open(script, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n < 3 || strncmp(text, "#!", 2) != 0)
        return 0;
    char *from = text + 2 + strspn(text + 2, " ");
    char *exec = !strncmp(from, "/bin/sh\n", 8) ? strstr(from, "'''exec' ") : NULL;
    if (exec)
        from = exec + strlen("'''exec' ");
    const char *ends = " \n";
    if (*from == '"') {
        from++;
        ends = "\"\n";
    }
    size_t length = strcspn(from, ends);
    if (!length || length >= sizeof interpreter || *from != '/')
        return 0;
    memcpy(interpreter, from, length);
    interpreter[length] = 0;
    return access(interpreter, X_OK) == 0;
}

static int has_boot(const char *home) {
    return snprintf(boot, sizeof boot, "%s/stockade/sandbox/runtime/boot.py", home) < (int)sizeof boot &&
           access(boot, R_OK) == 0;
}

/* An editable installation is a line in a .pth file. */
static int linked(const char *packages, const char *name) {
    char path[8192], text[4096] = "";
    if (strncmp(name, "__editable__.stockade-", 22) != 0 ||
        snprintf(path, sizeof path, "%s/%s", packages, name) >= (int)sizeof path)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    return *text == '/' && has_boot(text);
}

static int in_packages(const char *packages) {
    if (has_boot(packages))
        return 1;
    DIR *d = opendir(packages);
    int found = 0;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        found = linked(packages, e->d_name);
    if (d)
        closedir(d);
    return found;
}

/* Where the interpreter's site-packages has us, without asking the interpreter: PREFIX/lib/python3.N/site-packages. */
static int find_boot(void) {
    char prefix[4096], packages[8192];
    strcpy(prefix, interpreter);
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(prefix, '/');
        if (!slash)
            return 0;
        *slash = 0;
    }
    size_t n = strlen(prefix);
    if (n + 5 > sizeof prefix)
        return 0;
    strcpy(prefix + n, "/lib");
    DIR *d = opendir(prefix);
    int found = 0;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        if (!strncmp(e->d_name, "python3.", 8) &&
            snprintf(packages, sizeof packages, "%s/%s/site-packages", prefix, e->d_name) < (int)sizeof packages)
            found = in_packages(packages);
    if (d)
        closedir(d);
    return found;
}

_Noreturn void become_python(char **argv, int connection) {
    char own[4096], script[4200], number[16];
    int count = 0;
    while (argv[count])
        count++;
    ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
    own[n > 0 ? n : 0] = 0;
    char *slash = strrchr(own, '/');
    if (slash)
        *slash = 0;
    snprintf(script, sizeof script, "%s/stockade", own);
    char **words = calloc((size_t)count + 6, sizeof *words);
    if (!words || !read_shebang(script)) {
        fprintf(stderr, "stockade-runtime: its Python can't be found: %s should name it in its first line\n", script);
        exit(1);
    }
    unsetenv("STOCKADE_RUNTIME_ANSWER");
    if (connection >= 0 && fcntl(connection, F_SETFD, 0) == 0) {
        snprintf(number, sizeof number, "%d", connection);
        setenv("STOCKADE_RUNTIME_ANSWER", number, 1);
    }
    int i = 0;
    words[i++] = interpreter;
    words[i++] = "-I";
    if (find_boot()) {
        words[i++] = "-S";
        words[i++] = boot;
    } else {
        words[i++] = "-m";
        words[i++] = "stockade.sandbox.runtime";
    }
    memcpy(words + i, argv + 1, (size_t)(count > 0 ? count - 1 : 0) * sizeof *words);
    execv(interpreter, words);
    fprintf(stderr, "stockade-runtime: %s: %s\n", interpreter, strerror(errno));
    exit(1);
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
    if (code < 0)
        become_python(argv, connection);
    return code;
}
