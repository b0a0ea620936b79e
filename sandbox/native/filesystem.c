// SPDX-License-Identifier: Apache-2.0
/* New file systems, detached, and changes of one that is mounted. What the kernel says about an option goes to the supervisor. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

/* fsconfig(2) takes no string of more bytes; lowerdir of an overlay with many layers is longer. */
enum { LONGEST_VALUE = 255, OLD_DATA = 4095 /* of mount(2), a page with its end */ };

/* mount(2)'s bit for each of fsmount(2). */
static const struct {
    unsigned attribute;
    unsigned long flag;
} OLD_ATTRIBUTES[] = {
    {MOUNT_ATTR_RDONLY, 1},         {MOUNT_ATTR_NOSUID, 2},           {MOUNT_ATTR_NODEV, 4},          {MOUNT_ATTR_NOEXEC, 8},
    {MOUNT_ATTR_NOATIME, 1ul << 10}, {MOUNT_ATTR_STRICTATIME, 1ul << 24}, {MOUNT_ATTR_NODIRATIME, 1ul << 11},
    {MOUNT_ATTR_NOSYMFOLLOW, 1ul << 8},
};

/* ... and for what is said of the whole file system; fsconfig(2) has the same as words, but for the last. */
static const struct {
    const char *word;
    unsigned long flag;
} OLD_WORDS[] = {
    {"ro", 1},       {"rw", 0},     {"sync", 16},           {"async", 0},     {"mand", 64},
    {"nomand", 0},   {"dirsync", 128}, {"lazytime", 1ul << 25}, {"nolazytime", 0}, {"iversion", 1ul << 23},
};

/* Fail with what the kernel logged for this context: "e tmpfs: Bad value for 'size'". The first error, else the last line. */
_Noreturn static void refused(int fs) {
    int error = errno, said = memfd_create("said", MFD_CLOEXEC);
    char line[256];
    ssize_t n;
    while (fs >= 0 && said >= 0 && (n = read(fs, line, sizeof line)) > 2) { /* one message a read */
        if (ftruncate(said, 0) < 0 || pwrite(said, line + 2, (size_t)n - 2, 0) < 0 || line[0] == 'e')
            break;
    }
    answer(plan.sync_fd, (struct answer){HOOK_SAID, plan.step_number, 0, 0}, said);
    failed_with(error);
}

static void set_option(int fs, const char *key, const char *value) {
    if ((*value ? syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0)
                : syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, key, NULL, 0)) < 0)
        refused(fs);
}

static int configured(int fs, unsigned attributes) {
    if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        refused(fs);
    int mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
    if (mount < 0)
        refused(fs);
    close(fs);
    return mount;
}

/* An empty tmpfs, attached over the root, with a directory to mount on: mount(2) knows no detached mounts. */
static int workbench(int *place) {
    int fs = check(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)), root = check(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    int bench = configured(fs, 0);
    attach(bench, root);
    close(root);
    check(mkdirat(bench, "m", 0700));
    *place = check(openat(bench, "m", O_PATH | O_DIRECTORY | O_CLOEXEC));
    return bench;
}

static size_t append(char *data, size_t at, const char *text, size_t n) {
    if (at + n > OLD_DATA)
        failed_with(E2BIG);
    memcpy(data + at, text, n);
    data[at + n] = 0;
    return at + n;
}

static unsigned long old_flag(const char *key, const char *value, int *found) {
    for (size_t i = 0; i < sizeof OLD_WORDS / sizeof *OLD_WORDS; i++)
        if (!*value && strcmp(OLD_WORDS[i].word, key) == 0)
            return *found = 1, OLD_WORDS[i].flag;
    return *found = 0, 0;
}

/* mount(2), for what the calls above can't say. A copy of the mount is what stays. */
static int old_mount(const char *type, unsigned attributes, uint64_t n) {
    static char data[OLD_DATA + 1];
    const char *source = "none";
    unsigned long flags = 0;
    size_t length = 0;
    for (size_t i = 0; i < sizeof OLD_ATTRIBUTES / sizeof *OLD_ATTRIBUTES; i++)
        if (attributes & OLD_ATTRIBUTES[i].attribute)
            flags |= OLD_ATTRIBUTES[i].flag;
    for (data[0] = 0; n; n--) {
        const char *key = text(), *value = text();
        int found;
        flags |= old_flag(key, value, &found);
        if (found)
            continue;
        if (strcmp(key, "source") == 0) {
            source = value;
            continue;
        }
        length = append(data, length, ",", length != 0);
        length = append(data, length, key, strlen(key));
        length = append(data, length, "=", *value != 0);
        length = append(data, length, value, strlen(value));
    }
    int place, bench = workbench(&place);
    check(fchdir(place));
    check(syscall(SYS_mount, source, ".", type, flags, data));
    int mounted = check(openat(bench, "m", O_PATH | O_DIRECTORY | O_CLOEXEC));
    int tree = check(syscall(SYS_open_tree, mounted, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
    check(fchdir(bench));
    check(syscall(SYS_umount2, ".", 2 /* MNT_DETACH */));
    check(chdir("/"));
    close(mounted);
    close(place);
    close(bench);
    return tree;
}

/* Tell whether mount(2) is needed. The options are left to be read again. */
static int needs_old_mount(uint64_t n) {
    const uint8_t *options = plan.cursor;
    int needs = 0;
    for (; n; n--) {
        const char *key = text(), *value = text();
        needs |= strlen(value) > LONGEST_VALUE || (!*value && strcmp(key, "iversion") == 0);
    }
    plan.cursor = options;
    return needs;
}

void step_filesystem(void) {
    int to = slot_number();
    const char *type = text();
    unsigned attributes = (unsigned)number();
    uint64_t n = number();
    if (needs_old_mount(n))
        return put(to, old_mount(type, attributes, n));
    int fs = check(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
    for (; n; n--) {
        const char *key = text();
        set_option(fs, key, text());
    }
    put(to, configured(fs, attributes));
}

/* Options of a file system that is mounted already. */
void step_reconfigure(void) {
    int fs = check(syscall(SYS_fspick, descriptor(), "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH));
    for (uint64_t n = number(); n; n--) {
        const char *key = text();
        set_option(fs, key, text());
    }
    if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
        refused(fs);
    close(fs);
}
