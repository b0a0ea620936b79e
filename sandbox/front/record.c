// SPDX-License-Identifier: Apache-2.0
/* The state of a container, as lean_json.dumps writes it: compact JSON on one line, read without copying. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "front.h"

enum { MAX_STATE = 1 << 18, MAX_DEPTH = 16 };

static char text[MAX_STATE + 1];
static const char *at;

static int take(char c) { return *at == c ? (at++, 1) : 0; }

/* A string without its quotes. One with an escape is taken whole where it may stay as it is, and refused where it may not. */
static int string(struct slice *found, int plain) {
    if (!take('"'))
        return 0;
    found->text = at;
    for (; *at && *at != '"'; at++)
        if (*at == '\\') {
            if (plain || !at[1])
                return 0;
            at++;
        }
    found->length = (size_t)(at - found->text);
    return take('"');
}

static int skip(int depth);

static int members(char end, int named, int depth) {
    struct slice name;
    at++;
    if (take(end))
        return 1;
    do {
        if (named && (!string(&name, 0) || !take(':')))
            return 0;
        if (!skip(depth + 1))
            return 0;
    } while (take(','));
    return take(end);
}

/* Any value. */
static int skip(int depth) {
    struct slice ignored;
    if (depth > MAX_DEPTH)
        return 0;
    if (*at == '"')
        return string(&ignored, 0);
    if (*at == '{')
        return members('}', 1, depth);
    if (*at == '[')
        return members(']', 0, depth);
    const char *from = at;
    while (*at && strchr("+-.0123456789eEtrufalsn", *at))
        at++;
    return at > from;
}

static int whole_number(unsigned long long *n) {
    if (*at < '0' || *at > '9')
        return 0;
    *n = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (*n > 1ull << 58)
            return 0;
        *n = *n * 10 + (unsigned)(*at - '0');
    }
    return *at != '.' && *at != 'e' && *at != 'E';
}

/* Lines CONTROLLERS:DIRECTORY; one that begins with @ names a unit of systemd. */
static int groups(struct record *r) {
    struct slice line;
    if (!take('['))
        return 0;
    if (take(']'))
        return 1;
    do {
        if (r->groups == MAX_GROUPS || !string(&line, 1))
            return 0;
        const char *colon = memchr(line.text, ':', line.length);
        if (!colon || colon + 1 == line.text + line.length)
            return 0;
        if (*line.text == '@') {
            r->plain = 0;
            continue;
        }
        if (colon[1] != '/')
            return 0;
        r->names[r->groups] = (struct slice){line.text, (size_t)(colon - line.text)};
        r->paths[r->groups++] = (struct slice){colon + 1, line.length - (size_t)(colon + 1 - line.text)};
    } while (take(','));
    return take(']');
}

static int is(struct slice name, const char *word) { return name.length == strlen(word) && !memcmp(name.text, word, name.length); }

static int value(struct record *r, struct slice name) {
    unsigned long long n;
    const char *from = at;
    struct slice *piece = is(name, "ociVersion") ? &r->version
                          : is(name, "bundle")   ? &r->bundle
                          : is(name, "rootfs")   ? &r->rootfs
                          : is(name, "created")  ? &r->created
                          : is(name, "annotations") ? &r->annotations
                                                    : NULL;
    if (is(name, "pid")) {
        if (!whole_number(&n) || n > 1 << 30)
            return 0;
        r->pid = (pid_t)n;
        return 1;
    }
    if (is(name, "start"))
        return whole_number(&r->start);
    if (is(name, "cgroups"))
        return groups(r);
    if (is(name, "hooks") || is(name, "listener")) { /* an empty list, false */
        if (!skip(0))
            return 0;
        r->plain &= (at - from == 2 && !memcmp(from, "[]", 2)) || (at - from == 5 && !memcmp(from, "false", 5));
        return 1;
    }
    if (!skip(0))
        return 0;
    if (piece)
        *piece = (struct slice){from, (size_t)(at - from)};
    return 1;
}

int read_record(int directory, struct record *r) {
    struct stat s;
    struct slice name;
    int fd = openat(directory, "state.json", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return 0;
    ssize_t n = fstat(fd, &s) == 0 && S_ISREG(s.st_mode) ? read(fd, text, MAX_STATE) : -1;
    close(fd);
    if (n < 2 || n == MAX_STATE || text[n - 1] != '\n' || memchr(text, 0, (size_t)n))
        return 0;
    text[n - 1] = 0;
    *r = (struct record){.plain = 1};
    at = text;
    if (!take('{'))
        return 0;
    do
        if (!string(&name, 1) || !take(':') || !value(r, name))
            return 0;
    while (take(','));
    return take('}') && !*at && r->version.text && r->bundle.text && r->rootfs.text && r->created.text && r->annotations.text;
}
