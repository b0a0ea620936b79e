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

enum { MAX_DEPTH = 16 };

static char text[MAX_STATE + 1];
static const char *at;

static int take(char c) { return *at == c ? (at++, 1) : 0; }

/* An escape in a string, as Python writes them; `at` is on the backslash, and then on its last character. */
static int escape(void) {
    at++;
    if (!*at || !strchr("\"\\bfnrtu", *at))
        return 0;
    if (*at == 'u')
        for (int i = 0; i < 4; i++)
            if (!*++at || !strchr("0123456789abcdef", *at))
                return 0;
    return 1;
}

/*
 * A string without its quotes, in ASCII as all that we write. One with an escape is taken where it may stay as it is, and
 * refused where it may not (`plain`).
 */
static int string(struct slice *found, int plain) {
    if (!take('"'))
        return 0;
    found->text = at;
    for (; *at != '"'; at++)
        if (*at < 0x20 || *at > 0x7e || (*at == '\\' && (plain || !escape())))
            return 0;
    found->length = (size_t)(at - found->text);
    return take('"');
}

static int whole_number(unsigned long long *n) {
    if (*at < '0' || *at > '9' || (*at == '0' && at[1] >= '0' && at[1] <= '9'))
        return 0;
    *n = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (*n > 1ull << 58)
            return 0;
        *n = *n * 10 + (unsigned)(*at - '0');
    }
    return *at != '.' && *at != 'e' && *at != 'E';
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

static int word(const char *wanted) {
    size_t n = strlen(wanted);
    return strncmp(at, wanted, n) == 0 ? (at += n, 1) : 0;
}

/* Any value, save numbers that aren't whole: we write none. */
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
    if (word("true") || word("false") || word("null"))
        return 1;
    unsigned long long n;
    return whole_number(&n);
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
        if (colon[1] != '/' || memmem(colon, (size_t)(line.text + line.length - colon), "/..", 3))
            return 0;
        r->names[r->groups] = (struct slice){line.text, (size_t)(colon - line.text)};
        r->paths[r->groups++] = (struct slice){colon + 1, line.length - (size_t)(colon + 1 - line.text)};
    } while (take(','));
    return take(']');
}

static int is(struct slice name, const char *word) { return name.length == strlen(word) && !memcmp(name.text, word, name.length); }

/* What each name stands for; one that is there twice says two things, which Python refuses. */
enum key { ID, PID, START, GROUPS, HOOKS, LISTENER, VERSION, BUNDLE, ROOTFS, CREATED, ANNOTATIONS, KEYS };

static const char *const NAMES[KEYS] = {"id",         "pid",    "start",  "cgroups", "hooks",      "listener",
                                        "ociVersion", "bundle", "rootfs", "created", "annotations"};

/* Nothing of a kind: an empty list, false. */
static int nothing(void) { return word("[]") || word("false"); }

static int value(struct record *r, enum key key) {
    struct slice id; /* the directory's name is what counts */
    struct slice *const shown[KEYS] = {[ID] = &id,
                                       [VERSION] = &r->version,
                                       [BUNDLE] = &r->bundle,
                                       [ROOTFS] = &r->rootfs,
                                       [CREATED] = &r->created,
                                       [ANNOTATIONS] = &r->annotations};
    unsigned long long n;
    const char *from = at;
    if (key == PID)
        return whole_number(&n) && n <= 1 << 30 && (r->pid = (pid_t)n, 1);
    if (key == START)
        return whole_number(&r->start);
    if (key == GROUPS)
        return groups(r);
    if (key == HOOKS || key == LISTENER)
        return nothing() || (r->plain = 0, skip(0));
    if (key != KEYS && *from != (key == ANNOTATIONS ? '{' : '"'))
        return 0;
    if (!skip(0))
        return 0;
    if (key != KEYS)
        *shown[key] = (struct slice){from, (size_t)(at - from)};
    return 1;
}

static int members_of(struct record *r) {
    unsigned seen = 0;
    do {
        struct slice name;
        int key = 0;
        if (!string(&name, 1) || !take(':'))
            return 0;
        while (key < KEYS && !is(name, NAMES[key]))
            key++;
        if ((key < KEYS && seen & 1u << key) || !value(r, (enum key)key))
            return 0;
        seen |= 1u << key;
    } while (take(','));
    return (seen | 1u << KEYS | 1u << HOOKS | 1u << LISTENER) == (1u << (KEYS + 1)) - 1;
}

int read_record(int directory, struct record *r) {
    struct stat s;
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
    return take('{') && members_of(r) && take('}') && !*at;
}
