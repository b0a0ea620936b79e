// SPDX-License-Identifier: Apache-2.0
/* Mounts: detached trees, new file systems, their attributes, covers for what must not be seen, and the new root. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

void step_clone_tree(void) {
    int to = slot_number(), from = descriptor();
    unsigned recursive = number() ? AT_RECURSIVE : 0;
    put(to, check(syscall(SYS_open_tree, from, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | recursive)));
}

void step_filesystem(void) {
    int to = slot_number();
    const char *type = text();
    unsigned attributes = (unsigned)number();
    uint64_t n = number();
    int fs = check(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
    for (; n; n--) {
        const char *key = text(), *value = text();
        if (*value)
            check(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0));
        else
            check(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, key, NULL, 0));
    }
    check(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    put(to, check(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes)));
    close(fs);
}

void attach(int tree, int target) {
    check(syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

void step_attach(void) {
    int tree = descriptor();
    attach(tree, descriptor());
}

static void set_attributes(int mount, uint64_t set, uint64_t clear, uint64_t propagation, unsigned recursive) {
    struct mount_attr a = {.attr_set = set, .attr_clr = clear, .propagation = propagation};
    check(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &a, sizeof a));
}

void step_set_attributes(void) {
    int mount = descriptor();
    uint64_t set = number(), clear = number(), propagation = number();
    set_attributes(mount, set, clear, propagation, (unsigned)number());
}

/* Take read-only from the top of a tree again, so that mount points can be made; a mount that the host locked stays so. */
void step_writable_top(void) {
    struct mount_attr a = {.attr_clr = MOUNT_ATTR_RDONLY};
    if (syscall(SYS_mount_setattr, descriptor(), "", AT_EMPTY_PATH, &a, sizeof a) < 0 && errno != EPERM)
        failed();
}

/* Where mknod is refused, in a user namespace, a device is the host's own node, bound: only if it is the device meant. */
void step_bind_node(void) {
    int directory = descriptor();
    const char *name = text(), *source = text();
    mode_t type = (mode_t)number();
    unsigned major_number = (unsigned)number(), minor_number = (unsigned)number();
    int tree = check(syscall(SYS_open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
    struct stat s;
    check(fstat(tree, &s));
    if ((s.st_mode & S_IFMT) != type || s.st_rdev != makedev(major_number, minor_number))
        failed_with(ENODEV);
    check(mknodat(directory, name, S_IFREG | 0600, 0));
    int target = check(open_entry(directory, name));
    attach(tree, target);
    close(target);
    close(tree);
}

enum { COVER = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC };

static int copy_mount(int mount) {
    return check(syscall(SYS_open_tree, mount, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
}

static int empty_directory(void) {
    int fs = check(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC));
    check(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "nr_inodes", "1", 0));
    check(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "mode", "0555", 0));
    check(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    int mount = check(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, COVER | MOUNT_ATTR_NODEV));
    close(fs);
    return mount;
}

static int null_device(int null) {
    struct stat s;
    int mount = copy_mount(null);
    check(fstat(mount, &s)); /* CVE-2025-31133: the cover itself must be the null device */
    if (!S_ISCHR(s.st_mode) || s.st_rdev != makedev(1, 3))
        failed_with(ENODEV);
    set_attributes(mount, COVER, 0, 0, 0);
    return mount;
}

/* Cover a file with a null device, a directory with an empty read-only tmpfs. What this kernel lacks needs no cover. The
 * second cover of a kind is a copy of the first where that is attached: a third of the price of a tmpfs. */
void step_mask(void) {
    static int first[2] = {-1, -1};
    int root = descriptor(), null = descriptor();
    const char *path = text();
    int target = open_inside(root, path, O_PATH, 0);
    if (target < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return;
        failed();
    }
    struct stat s;
    check(fstat(target, &s));
    int directory = S_ISDIR(s.st_mode), *made = &first[directory];
    int cover = *made >= 0 ? copy_mount(*made) : directory ? empty_directory() : null_device(null);
    attach(cover, target);
    if (*made < 0)
        *made = cover;
    else
        close(cover);
    close(target);
}

void step_read_only(void) {
    int root = descriptor();
    const char *path = text();
    int target = open_inside(root, path, O_PATH, 0);
    if (target < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return;
        failed();
    }
    int tree = check(syscall(SYS_open_tree, target, "",
                             OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE));
    set_attributes(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0, 0, 1);
    attach(tree, target);
    close(tree);
    close(target);
}

/* What was opened on the way here leads back to the host, or out of the root's mounts: it goes with the old root. In a PID
 * namespace that is shared, someone could otherwise find it in /proc/PID/fd while this process stands ready. */
void step_pivot(void) {
    int root = descriptor();
    check(fchdir(root));
    check(syscall(SYS_pivot_root, ".", "."));
    check(syscall(SYS_umount2, ".", 2 /* MNT_DETACH */)); /* "." is now the old root, on top of the new one (pivot_root(2), NOTES) */
    check(chdir("/"));
    leave_host();
}
