// SPDX-License-Identifier: Apache-2.0
/* Device nodes: made where the kernel lets us, else the host's own, bound; and the links beside them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

static int is_device(const struct stat *s, mode_t type, dev_t number) {
    return (s->st_mode & S_IFMT) == type && s->st_rdev == number;
}

/* Bind the host's node over a name that is there, or made now: only if it is the device that is meant (CVE-2025-31133). Through a
 * read-only mount a device is written all the same, but its mode and owner, which are the host's, are not changed. */
static void bind_node(int directory, const char *name, const char *source, mode_t type, dev_t number) {
    int tree = check(syscall(SYS_open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
    struct mount_attr a = {.attr_set = MOUNT_ATTR_RDONLY};
    struct stat s;
    check(fstat(tree, &s));
    if (!is_device(&s, type, number))
        failed_with(ENODEV);
    check(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &a, sizeof a));
    if (mknodat(directory, name, S_IFREG | 0600, 0) < 0 && errno != EEXIST)
        failed();
    int target = check(open_entry(directory, name));
    attach(tree, target);
    close(target);
    close(tree);
}

/* Where mknod is refused, in a user namespace, in a directory of our own making. */
void step_bind_node(void) {
    int directory = descriptor();
    const char *name = text(), *source = text();
    mode_t type = (mode_t)number();
    unsigned major_number = (unsigned)number(), minor_number = (unsigned)number();
    bind_node(directory, name, source, type, makedev(major_number, minor_number));
}

/* The same where the directory may be the image's, and what is there already stays if it is the device that is meant. */
void step_device(void) {
    int directory = descriptor();
    const char *name = text(), *source = text();
    mode_t mode = (mode_t)number(), type = mode & S_IFMT;
    unsigned major_number = (unsigned)number(), minor_number = (unsigned)number();
    uid_t uid = (uid_t)number();
    gid_t gid = (gid_t)number();
    int bind = (int)number();
    dev_t device = type == S_IFIFO ? 0 : makedev(major_number, minor_number);
    struct stat s;
    int there = fstatat(directory, name, &s, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && is_device(&s, type, device))
        return;
    if (there && type == S_IFIFO)
        failed_with(EEXIST);
    if (!there && !bind) {
        if (mknodat(directory, name, mode, device) == 0) {
            if (uid != geteuid() || gid != getegid()) {
                int made = check(open_entry(directory, name));
                check(fstat(made, &s));
                if (!is_device(&s, type, device)) /* another's directory, where a name can change: only what was made */
                    failed_with(ESTALE);
                check(fchownat(made, "", uid, gid, AT_EMPTY_PATH)); /* the mode stays: set-id bits are nothing to a device */
                close(made);
            }
            return;
        }
        if (errno != EPERM || type == S_IFIFO)
            failed();
    }
    bind_node(directory, name, source, type, device);
}

/* A link that programs expect. What an image or a mount has there stays; with `replace` only a mount does. */
void step_link(void) {
    int directory = descriptor();
    const char *name = text(), *target = text();
    if (number() && unlinkat(directory, name, 0) < 0 && errno != ENOENT && errno != EBUSY && errno != EISDIR)
        failed();
    if (symlinkat(target, directory, name) < 0 && errno != EEXIST)
        failed();
}
