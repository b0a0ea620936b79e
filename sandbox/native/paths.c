// SPDX-License-Identifier: Apache-2.0
/* Paths inside a root that may be hostile: each is opened and made there, never through a link that leads out. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

enum { MAX_TRIES = 64 };

int open_inside(int root, const char *path, uint64_t flags, uint64_t mode) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int fd, tries = 0;
    do /* EAGAIN: a rename raced with a ".." (openat2(2)) */
        fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && ++tries < MAX_TRIES);
    return fd;
}

/* A name in a directory, which is no link. What was made a moment ago may have been replaced by one. */
int open_entry(int directory, const char *name) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, directory, name, &how, sizeof how);
}

enum { MAX_PATH = 4096, MAX_LINKS = 16 };

static int ensure_entry(int root, char *path, int directory, mode_t mode, int links);

/* Make what a dangling link leads to, in the root, as an image has it whose /var/run is a link to a /run that isn't there. `parent`
 * is the path of the directory that holds the link. */
static int ensure_target(int root, const char *parent, int holder, const char *name, int directory, mode_t mode, int links) {
    char path[MAX_PATH];
    size_t n = strlen(parent);
    if (links == MAX_LINKS || n + 2 >= sizeof path)
        return errno = ELOOP, -1;
    memcpy(path, parent, n);
    path[n++] = '/';
    ssize_t length = readlinkat(holder, name, path + n, sizeof path - n);
    if (length <= 0 || n + (size_t)length >= sizeof path)
        return errno = length < 0 ? errno : ENAMETOOLONG, -1;
    path[n + (size_t)length] = 0;
    if (path[n] == '/')
        memmove(path, path + n, (size_t)length + 1);
    return ensure_entry(root, path, directory, mode, links + 1);
}

/* `path` is cut where it is split and must be writable. The usual case, all there or only the last name missing, is quick. */
static int ensure_entry(int root, char *path, int directory, mode_t mode, int links) {
    int fd = open_inside(root, path, O_PATH, 0);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    size_t n = strlen(path);
    while (n && path[n - 1] == '/')
        path[--n] = 0;
    char *name = path + n;
    while (name > path && name[-1] != '/')
        name--;
    int parent = root;
    if (name - path > 1) { /* more than the leading slash stands before it */
        name[-1] = 0;
        parent = ensure_entry(root, path, 1, 0755, links);
        if (parent < 0)
            return -1;
    }
    int made = directory ? mkdirat(parent, name, mode) : mknodat(parent, name, S_IFREG | mode, 0);
    if (made == 0 || errno == EEXIST) {
        fd = open_entry(parent, name);
        if (fd < 0 && errno == ELOOP)
            fd = ensure_target(root, name - path > 1 ? path : "", parent, name, directory, mode, links);
    }
    int error = errno;
    if (parent != root)
        close(parent);
    return errno = error, fd;
}

/* Make `path` under `root` where it is missing, with the directories before it, each opened in the root; give it as O_PATH. */
int ensure(int root, const char *path, int directory, mode_t mode) {
    char part[MAX_PATH];
    size_t n = strlen(path);
    if (n >= sizeof part)
        return errno = ENAMETOOLONG, -1;
    memcpy(part, path, n + 1);
    return ensure_entry(root, part, directory, mode, 0);
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

void step_open(void) {
    int to = slot_number();
    const char *path = text();
    uint64_t flags = number();
    put(to, check(open(path, (int)flags | O_CLOEXEC)));
}

void step_open_inside(void) {
    int to = slot_number(), root = descriptor();
    put(to, check(open_inside(root, text(), O_PATH, 0)));
}

void step_ensure(void) {
    int to = slot_number(), root = descriptor();
    const char *path = text();
    int directory = (int)number();
    mode_t mode = (mode_t)number();
    int fd = check(ensure(root, path, directory, mode));
    struct stat s;
    check(fstat(fd, &s));
    if (directory && !S_ISDIR(s.st_mode))
        failed_with(ENOTDIR);
    if (!directory && S_ISDIR(s.st_mode))
        failed_with(EISDIR);
    put(to, fd);
}

/* The mount point for a tree: a directory for a directory, a file for anything else. */
void step_ensure_like(void) {
    int to = slot_number(), root = descriptor();
    const char *path = text();
    struct stat like, s;
    check(fstat(descriptor(), &like));
    int fd = check(ensure(root, path, S_ISDIR(like.st_mode), S_ISDIR(like.st_mode) ? 0755 : 0644));
    struct statfs fs;
    check(fstatfs(fd, &fs));
    if (fs.f_type == PROC_SUPER_MAGIC) /* a volume's destination that a link of the image leads there: CVE-2019-16884 */
        failed_with(ELOOP);
    check(fstat(fd, &s));
    if (S_ISDIR(like.st_mode) != S_ISDIR(s.st_mode))
        failed_with(S_ISDIR(s.st_mode) ? EISDIR : ENOTDIR);
    put(to, fd);
}

/* A directory of the root itself, made where missing, never found through a link: looked at and held in one step, so that
 * nobody can put a link there in between (CVE-2021-30465). */
void step_ensure_real(void) {
    int to = slot_number(), root = descriptor();
    const char *name = text();
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    int fd = (int)syscall(SYS_openat2, root, name, &how, sizeof how);
    if (fd < 0 && errno == ENOENT) {
        if (mkdirat(root, name, 0755) < 0 && errno != EEXIST)
            failed();
        fd = (int)syscall(SYS_openat2, root, name, &how, sizeof how);
    }
    put(to, check(fd));
}

/* A root file system whose /proc, /sys or /dev is a link aims our mounts elsewhere: CVE-2019-16884, CVE-2023-27561. */
void step_refuse_link(void) {
    int root = descriptor();
    const char *name = text();
    struct stat s;
    if (fstatat(root, name, &s, AT_SYMLINK_NOFOLLOW) == 0) {
        if (S_ISLNK(s.st_mode))
            failed_with(ELOOP);
    } else if (errno != ENOENT)
        failed();
}

void step_make_node(void) {
    int directory = descriptor();
    const char *name = text();
    mode_t mode = (mode_t)number();
    unsigned major_number = (unsigned)number(), minor_number = (unsigned)number();
    uid_t uid = (uid_t)number();
    gid_t gid = (gid_t)number();
    if (S_ISDIR(mode))
        check(mkdirat(directory, name, mode & 07777)); /* the umask is 0 until the step UMASK */
    else
        check(mknodat(directory, name, mode, makedev(major_number, minor_number)));
    if (uid != geteuid() || gid != getegid()) {
        check(fchownat(directory, name, uid, gid, AT_SYMLINK_NOFOLLOW));
        check(fchmodat(directory, name, mode & 07777, 0)); /* chown(2) takes set-id bits; the name is in our own tmpfs */
    }
}

void step_make_link(void) {
    int directory = descriptor();
    const char *name = text();
    check(symlinkat(text(), directory, name));
}

static void write_all(int fd, const char *data, uint64_t n) {
    while (n) {
        ssize_t done = write(fd, data, n);
        if (done < 0) {
            if (errno == EINTR)
                continue;
            failed();
        }
        data += done;
        n -= (uint64_t)done;
    }
}

void step_write_file(void) {
    int directory = descriptor();
    const char *name = text();
    mode_t mode = (mode_t)number();
    uint64_t n;
    const char *data = bytes(&n);
    int fd = check(open_inside(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode & 07777));
    write_all(fd, data, n);
    close(fd);
}
