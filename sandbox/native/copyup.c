// SPDX-License-Identifier: Apache-2.0
/* tmpcopyup: a tmpfs that starts with what its mount point held. The content is the image's, and may be hostile. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

enum { DEEPEST = 256, KEEP_MODE = 1, KEEP_OWNER = 2, CONTENT = 4 };

/* Inodes of more than one name, so that they stay one file. */
struct linked {
    dev_t device;
    ino_t inode;
    char *path; /* in the new tree */
};
static struct linked *linked;
static size_t linked_count, linked_room;

static char *joined(const char *directory, const char *name) {
    size_t n = strlen(directory), m = strlen(name);
    char *path = malloc(n + m + 2);
    if (!path)
        failed_with(ENOMEM);
    memcpy(path, directory, n);
    if (n)
        path[n++] = '/';
    memcpy(path + n, name, m + 1);
    return path;
}

/* Link to the copy that was made of the same inode, or remember this one. */
static int link_again(int top, int to, const char *where, const char *name, const struct stat *s) {
    for (size_t i = 0; i < linked_count; i++)
        if (linked[i].device == s->st_dev && linked[i].inode == s->st_ino) {
            check(linkat(top, linked[i].path, to, name, 0)); /* our own tree: no link is followed in it */
            return 1;
        }
    if (linked_count == linked_room) {
        linked_room = linked_room ? 2 * linked_room : 64;
        linked = realloc(linked, linked_room * sizeof *linked);
        if (!linked)
            failed_with(ENOMEM);
    }
    linked[linked_count++] = (struct linked){s->st_dev, s->st_ino, joined(where, name)};
    return 0;
}

/* What a tmpfs can't hold of these, or a user namespace may not set, is no part of a copy: ls and cp leave it out as well. */
static void copy_attributes(int from, int to) {
    static char names[XATTR_LIST_MAX], value[XATTR_SIZE_MAX];
    ssize_t length = flistxattr(from, names, sizeof names);
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(names + at) + 1) {
        ssize_t n = fgetxattr(from, names + at, value, sizeof value);
        if (n >= 0 && fsetxattr(to, names + at, value, (size_t)n, 0) < 0 && errno != EPERM && errno != EOPNOTSUPP)
            failed();
    }
}

static void copy_bytes(int from, int to) {
    ssize_t n;
    while ((n = sendfile(to, from, NULL, 1 << 30)) > 0)
        continue;
    check(n);
}

/* Owner first: chown(2) takes set-id bits and file capabilities; times last. */
static void finish(int from, int to, const struct stat *s, int keep) {
    if (keep & KEEP_OWNER && fchown(to, s->st_uid, s->st_gid) < 0 && errno != EINVAL && errno != EPERM)
        failed(); /* an owner that has no id in the container stays its root */
    if (keep & KEEP_MODE)
        check(fchmod(to, s->st_mode & 07777));
    copy_attributes(from, to);
    check(futimens(to, (struct timespec[2]){s->st_atim, s->st_mtim}));
}

static void copy_special(int from, int to, const char *name, const struct stat *s) {
    if (S_ISLNK(s->st_mode)) {
        char target[PATH_MAX];
        ssize_t n = check((long)readlinkat(from, name, target, sizeof target - 1));
        target[n] = 0;
        check(symlinkat(target, to, name));
    } else if (mknodat(to, name, s->st_mode & ~07777u, s->st_rdev) < 0) {
        if (errno == EPERM && (S_ISCHR(s->st_mode) || S_ISBLK(s->st_mode)))
            return; /* a device in a user namespace: dead where it was, too */
        failed();
    }
    if (fchownat(to, name, s->st_uid, s->st_gid, AT_SYMLINK_NOFOLLOW) < 0 && errno != EINVAL && errno != EPERM)
        failed();
    if (!S_ISLNK(s->st_mode))
        check(fchmodat(to, name, s->st_mode & 07777, 0));
    check(utimensat(to, name, (struct timespec[2]){s->st_atim, s->st_mtim}, AT_SYMLINK_NOFOLLOW));
}

static void copy_directory(int top, int from, int to, const char *where, int depth);

static void copy_entry(int top, int from, int to, const char *where, const char *name, int depth) {
    struct stat s;
    if (fstatat(from, name, &s, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT)
            return;
        failed();
    }
    if (!S_ISDIR(s.st_mode) && s.st_nlink > 1 && link_again(top, to, where, name, &s))
        return;
    if (!S_ISDIR(s.st_mode) && !S_ISREG(s.st_mode))
        return copy_special(from, to, name, &s);
    /* What was looked at may be another thing by now: no link is followed, nothing blocks, and the descriptor decides. */
    int old = check(openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)), new;
    struct stat now;
    check(fstat(old, &now));
    if (now.st_dev != s.st_dev || now.st_ino != s.st_ino)
        failed_with(ESTALE);
    if (S_ISDIR(s.st_mode)) {
        check(mkdirat(to, name, 0700));
        new = check(openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        char *path = joined(where, name);
        copy_directory(top, old, new, path, depth + 1);
        free(path);
    } else {
        new = check(openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
        copy_bytes(old, new);
    }
    finish(old, new, &now, KEEP_MODE | KEEP_OWNER);
    close(new);
    close(old);
}

static void copy_directory(int top, int from, int to, const char *where, int depth) {
    if (depth > DEEPEST)
        failed_with(ELOOP);
    int again = check(openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR *entries = fdopendir(again);
    struct dirent *entry;
    if (!entries)
        failed();
    while ((errno = 0, entry = readdir(entries)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            copy_entry(top, from, to, where, entry->d_name, depth);
    if (errno)
        failed();
    closedir(entries);
}

/* Make the root of a new file system like the directory that it will cover, if there is one: mode, owner, content. */
void step_like_covered(void) {
    int tree = descriptor(), root = descriptor();
    const char *path = text();
    int what = (int)number();
    int from = open_inside(root, path, (what & CONTENT ? O_RDONLY : O_PATH) | O_DIRECTORY, 0);
    if (from < 0) {
        if (errno == ENOENT)
            return;
        failed();
    }
    int to = check(openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct stat s;
    check(fstat(from, &s));
    if (what & CONTENT) {
        copy_directory(to, from, to, "", 0);
        finish(from, to, &s, what);
    } else if (what & KEEP_MODE)
        check(fchmod(to, s.st_mode & 07777));
    while (linked_count)
        free(linked[--linked_count].path);
    close(to);
    close(from);
}
