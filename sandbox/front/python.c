// SPDX-License-Identifier: Apache-2.0
/*
 * How Python is found: nothing is stamped into the program, because a wheel is built in one place and installed in another.
 *
 * The script `stockade` beside it names the interpreter in its first line, as whoever installed both wrote it there. The
 * package is below the same prefix as the scripts, or below the interpreter's. Where it is found, Python starts without its
 * site module, which takes longer than all that `create` imports; else it has to look for the package itself.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front.h"

enum { LONG = 4096 }; /* PATH_MAX, with what ends it */

static char interpreter[LONG], boot[LONG];

/* printf into a path; false where it is too long. */
#define FITS(path, ...) (snprintf(path, LONG, __VA_ARGS__) < LONG)

/* The beginning of a small file, ended by zero. */
static int head(const char *path, char text[LONG]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, LONG - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* Cut the last name off a path. */
static int up(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    *slash = 0;
    return 1;
}

/* ---- the interpreter --------------------------------------------------------------------------------------------- */

/*
 * The interpreter in the first lines of a script that pip or uv has written: #!PATH, or, for a path that is too long for the
 * kernel or has a blank in it, a line of sh with the path as it is or in quotes of either kind. In an environment that can
 * be moved, uv has sh look for it beside the script.
 */
static int find_interpreter(const char *scripts) {
    static const char SH[] = "#!/bin/sh\n'''exec' ";
    char path[LONG], text[LONG];
    if (!FITS(path, "%s/stockade", scripts) || !head(path, text) || strncmp(text, "#!", 2) != 0)
        return 0;
    char *from = text + 2 + strspn(text + 2, " ");
    if (!strncmp(text, SH, sizeof SH - 1)) {
        from = text + sizeof SH - 1;
        if (!strncmp(from, "\"$(", 3))
            return FITS(interpreter, "%s/python", scripts) && access(interpreter, X_OK) == 0;
    }
    char quoted[] = {*from, '\n', 0};
    const char *ends = *from == '"' || *from == '\'' ? quoted : " \n";
    from += ends == quoted;
    from[strcspn(from, ends)] = 0;
    return *from == '/' && FITS(interpreter, "%s", from) && access(interpreter, X_OK) == 0;
}

/* ---- the package ------------------------------------------------------------------------------------------------- */

static int has_boot(const char *home) {
    return FITS(boot, "%s/stockade/sandbox/runtime/boot.py", home) && access(boot, R_OK) == 0;
}

/* An editable installation is a line in a .pth file. */
static int linked(const char *packages, const char *name) {
    char path[LONG], text[LONG];
    if (strncmp(name, "__editable__.stockade-", 22) != 0 || !FITS(path, "%s/%s", packages, name) || !head(path, text))
        return 0;
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

/* Below a prefix, for one version as in "python3.11". Debian has a word of its own, and Fedora a place for 64 bits. */
static int below(const char *prefix, const char *version) {
    static const char *const places[] = {"lib/%s/site-packages", "lib64/%s/site-packages", "lib/%s/dist-packages"};
    char packages[LONG], tail[LONG];
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (FITS(tail, places[i], version) && FITS(packages, "%s/%s", prefix, tail) && in_packages(packages))
            return 1;
    return 0;
}

/* Without asking the interpreter, which links of all kinds lead to under the name that says its version. */
static int find_boot(const char *scripts) {
    char real[PATH_MAX], prefix[LONG];
    if (!realpath(interpreter, real))
        return 0;
    const char *version = strrchr(real, '/') + 1;
    if (strncmp(version, "python3.", 8) != 0)
        return 0;
    if (FITS(prefix, "%s", scripts) && up(prefix) && below(prefix, version))
        return 1;
    return FITS(prefix, "%s", interpreter) && up(prefix) && up(prefix) && below(prefix, version);
}

/* ---- its start --------------------------------------------------------------------------------------------------- */

/* Let Python find an answer on a socket, and no other number that somebody may have left in the environment. */
static void hand_over(int connection) {
    char number[16];
    unsetenv("STOCKADE_RUNTIME_ANSWER");
    if (connection < 0 || fcntl(connection, F_SETFD, 0) < 0)
        return;
    snprintf(number, sizeof number, "%d", connection);
    setenv("STOCKADE_RUNTIME_ANSWER", number, 1);
}

_Noreturn void become_python(char **argv, int connection) {
    char scripts[LONG];
    size_t count = 0, i = 0;
    while (argv[count])
        count++;
    char **words = calloc(count + 5, sizeof *words);
    ssize_t n = readlink("/proc/self/exe", scripts, sizeof scripts - 1);
    scripts[n > 0 ? n : 0] = 0;
    if (!words || !up(scripts) || !find_interpreter(scripts)) {
        fprintf(stderr, "stockade-runtime: its Python can't be found: %s/stockade should name it in its first line\n", scripts);
        exit(1);
    }
    hand_over(connection);
    words[i++] = interpreter;
    words[i++] = "-I";
    if (find_boot(scripts)) {
        words[i++] = "-S";
        words[i++] = boot;
    } else {
        words[i++] = "-m";
        words[i++] = "stockade.sandbox.runtime";
    }
    for (size_t word = 1; word < count; word++)
        words[i++] = argv[word];
    execv(interpreter, words);
    fprintf(stderr, "stockade-runtime: %s: %s\n", interpreter, strerror(errno));
    exit(1);
}
