// SPDX-License-Identifier: Apache-2.0
/* Mounts: detached trees, new file systems, their attributes, covers for what must not be seen, and the new root. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

void step_clone_tree(void) {
    int to = slot_number(), from = descriptor();
    unsigned recursive = number() ? AT_RECURSIVE : 0;
    put(to, check(syscall(SYS_open_tree, from, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | recursive)));
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

/* Make all that is mounted below a tree's top read-only, and the top what it was: mount points can be made in it. */
void step_read_only_below(void) {
    int mount = descriptor();
    struct statvfs s;
    struct mount_attr a = {.attr_clr = MOUNT_ATTR_RDONLY};
    check(fstatvfs(mount, &s));
    set_attributes(mount, MOUNT_ATTR_RDONLY, 0, 0, 1);
    if (!(s.f_flag & ST_RDONLY) && syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &a, sizeof a) < 0 && errno != EPERM)
        failed(); /* EPERM: locked by an outer user namespace */
}

/* Take flags off, and set times. What an outer user namespace has locked stays as it is: less is allowed than was asked for. */
void step_relax(void) {
    int mount = descriptor();
    uint64_t set = number(), clear = number();
    unsigned recursive = number() ? AT_RECURSIVE : 0;
    struct mount_attr all = {.attr_set = set, .attr_clr = clear};
    if (syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | recursive, &all, sizeof all) == 0)
        return;
    if (errno != EPERM)
        failed();
    for (uint64_t bit = 1; bit && bit <= clear; bit <<= 1) {
        struct mount_attr one = {.attr_clr = clear & bit};
        if (bit & MOUNT_ATTR__ATIME) {
            if (bit != (MOUNT_ATTR__ATIME & -MOUNT_ATTR__ATIME))
                continue; /* the three bits are one number */
            one = (struct mount_attr){.attr_set = set & MOUNT_ATTR__ATIME, .attr_clr = clear & MOUNT_ATTR__ATIME};
        }
        if (one.attr_clr && syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | recursive, &one, sizeof one) < 0 && errno != EPERM)
            failed();
    }
}

enum { PROC_ROOT_INODE = 1 };

/* What is bound over /proc must be a procfs, and its root: not a directory that looks like one. */
void step_proc_root(void) {
    int mount = descriptor();
    struct statfs fs;
    struct stat s;
    check(fstatfs(mount, &fs));
    check(fstat(mount, &s));
    if (fs.f_type != PROC_SUPER_MAGIC || s.st_ino != PROC_ROOT_INODE)
        failed_with(EINVAL);
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
    uint64_t attributes = number();
    int target = open_inside(root, path, O_PATH, 0);
    if (target < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return;
        failed();
    }
    int tree = check(syscall(SYS_open_tree, target, "",
                             OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE));
    set_attributes(tree, attributes, 0, 0, 1);
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

/* Tell the type of a line of mountinfo, and cut it at the end of its mount point, which is given; NULL for another type. */
static char *kernel_file_system(char *line) {
    if (!strstr(line, " - proc ") && !strstr(line, " - sysfs "))
        return NULL;
    for (int blanks = 0; *line; line++)
        if (*line == ' ' && ++blanks == 4) {
            char *end = strchr(line + 1, ' ');
            if (end)
                *end = 0;
            return line + 1;
        }
    return NULL;
}

/* Detach each procfs and sysfs that this process can name, so that only those of the new root are left: with another one at
 * hand, who may mount in the container gets one without its masks (mount_too_revealing in fs/namespace.c). */
static void detach_kernel_file_systems(void) {
    static char mounts[1 << 20];
    size_t length = 0;
    ssize_t n;
    int fd = check(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
    while ((n = read(fd, mounts + length, sizeof mounts - 1 - length)) > 0)
        length += (size_t)n;
    check(n);
    close(fd);
    for (char *line = mounts, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        char *point = kernel_file_system(line);
        if (point && syscall(SYS_umount2, point, 2 | 8 /* MNT_DETACH | UMOUNT_NOFOLLOW */) < 0 && errno != EINVAL && errno != ENOENT)
            failed();
    }
}

static void change_root(int root) {
    check(fchdir(root));
    check(chroot("."));
    check(chdir("/"));
    leave_host();
}

/* --no-pivot: the new root lies over the old one already. A path of this process still begins in the old one. */
void step_move_root(void) {
    int root = descriptor();
    detach_kernel_file_systems();
    change_root(root);
}

void step_chroot(void) { change_root(descriptor()); }
