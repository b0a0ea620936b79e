// SPDX-License-Identifier: Apache-2.0
/*
 * The launcher: walks a plan that Python made. Python decides, this program acts.
 *
 * It is executed once per Python process from a sealed memfd with the control socket as descriptor 0. Each packet on that
 * socket is one launch: a header, two lists of steps, and by SCM_RIGHTS the descriptors that the steps speak of. The first
 * list is walked here (clone, cgroup membership, id maps), the second by the new process, which ends in execve. A step has
 * no decision in it beyond what only the kernel can answer at that moment.
 *
 * The new process is a child of Python (CLONE_PARENT), so Python waits for it as for any other. This process keeps a pidfd
 * of each: when the control socket closes, because Python ended or was killed, it kills them all. The payload can clear its
 * parent-death signal (prctl(2), or any change of credentials); it cannot reach this process. Where the end of the first
 * process is not the end of all, because the container has no PID namespace of its own, it also keeps the directories of its
 * control groups (step GUARD) and kills what is in them when the first process ends, or Python.
 *
 * The same program stays in the container as its init where one was asked for (step INIT).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

/* sandbox/steps.py has a class of the same name for each; a test compares the two lists. */
#define OPS(X)                                                                                                          \
    X(CLONE) X(PLACE) X(WRITE_MAPS) X(WAIT_MAPS) X(WAIT_SUPERVISOR) X(CLOSE_OTHERS) X(DEATH_SIGNAL) X(SET_IDS)          \
    X(UNSHARE) X(JOIN) X(PROPAGATION) X(OPEN) X(OPEN_IN) X(CLONE_TREE) X(FILESYSTEM) X(ATTACH) X(SET_ATTRIBUTES) X(WRITABLE_TOP)      \
    X(ENSURE) X(ENSURE_LIKE) X(ENSURE_REAL) X(REFUSE_LINK) X(MAKE_NODE) X(BIND_NODE) X(MAKE_LINK) X(MASK) X(READ_ONLY) X(WRITE_FILE) X(PIVOT)           \
    X(SESSION) X(KEYRING) X(RLIMIT) X(HOSTNAME) X(DOMAINNAME) X(SYSCTL) X(OOM_SCORE) X(UMASK) X(BOUNDING)               \
    X(SECUREBITS) X(CAPABILITIES) X(AMBIENT) X(NO_NEW_PRIVS) X(DUMPABLE) X(TERMINAL) X(STDIO) X(OWN_STDIO) X(SECCOMP)   \
    X(WORKING_DIRECTORY) X(READY) X(INIT) X(EXECUTE) X(LOOPBACK) X(IDMAP) X(GUARD)

enum op {
#define X(name) OP_##name,
    OPS(X)
#undef X
    OP_COUNT
};

enum message { CLONED = 1, PREPARED, FAILED, TERMINAL_MASTER, STREAM };

enum { SLOTS = 512, MAX_PACKET = 196608, MAX_CHILDREN = 16384, MAX_TRIES = 64, GUARDS = 2, KILL_ROUNDS = 1000 };
enum { MAX_FILTER = 4096 }; /* BPF_MAXINSNS */

/* Slots from here on outlive PIVOT: the terminal and what comes with the last steps. plan_mounts.TERMINAL_SLOT is the same. */
enum { KEPT_SLOTS = 500 };

#define MAGIC 0x4b435453u /* "STCK" */

struct header {
    uint32_t magic, in_memfd, descriptors, parent_steps, child_steps, length;
};

struct answer {
    uint32_t kind, step;
    int32_t error;
    uint32_t value;
};

struct go {
    uint32_t magic, in_memfd, descriptors, length;
};

static int slot[SLOTS];
static int slots_used;
static int sync_fd = -1;  /* to the supervisor's end of this launch */
static int go_fd = -1;    /* the launcher's word that the id maps are written */
static const uint8_t *cursor, *limit;
static const uint8_t *tail; /* the steps that came with the supervisor's word */
static uint32_t tail_length;
static uint32_t step_number;
static struct pollfd children[MAX_CHILDREN + 1];
static int guards[MAX_CHILDREN + 1][GUARDS]; /* directories of control groups, -1 for none */
static int child_count;
static int in_child;      /* this is a new process, not the launcher */
static int pivoted;
static struct rlimit caller_files; /* what the caller had, for the programs; the launcher itself takes all it can get */

/* ---- answers ------------------------------------------------------------------------------------------------------- */

static int answer(int socket, struct answer a, int descriptor) {
    struct iovec data = {&a, sizeof a};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1};
    if (descriptor >= 0) {
        memset(&control, 0, sizeof control);
        m.msg_control = &control;
        m.msg_controllen = sizeof control.space;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &descriptor, sizeof(int));
    }
    return sendmsg(socket, &m, MSG_NOSIGNAL) == (ssize_t)sizeof a ? 0 : -1;
}

static void kill_all(void);

/* The new process ends here when a step fails. A filter may already forbid the write: the exit code stays 125 then.
 * The launcher itself comes here for a plan whose bytes make no sense: it ends, and what it guards with it. */
static _Noreturn void failed_with(int error) {
    answer(sync_fd, (struct answer){FAILED, step_number, error, 0}, -1);
    if (!in_child)
        kill_all();
    _exit(125);
}

static _Noreturn void failed(void) { failed_with(errno); }

static int check(long result) {
    if (result < 0)
        failed();
    return (int)result;
}

/* ---- the plan's bytes ------------------------------------------------------------------------------------------------ */

/* Numbers are 8 bytes; a text is its length, its bytes and zeros to the next multiple of 8, at least one. */
static uint64_t number(void) {
    uint64_t n;
    if (limit - cursor < 8)
        failed_with(EBADMSG);
    memcpy(&n, cursor, 8);
    cursor += 8;
    return n;
}

static const char *bytes(uint64_t *length) {
    uint64_t n = number(), padded = (n + 8) & ~7ull;
    if (n > INT32_MAX || padded > (uint64_t)(limit - cursor) || cursor[n] != 0)
        failed_with(EBADMSG);
    const char *text = (const char *)cursor;
    cursor += padded;
    *length = n;
    return text;
}

static const char *text(void) {
    uint64_t n;
    const char *t = bytes(&n);
    if (strlen(t) != n)
        failed_with(EBADMSG);
    return t;
}

static int slot_number(void) {
    uint64_t n = number();
    if (n >= SLOTS)
        failed_with(EBADMSG);
    return (int)n;
}

static int descriptor(void) {
    int fd = slot[slot_number()];
    if (fd < 0)
        failed_with(EBADF);
    return fd;
}

static void put(int n, int fd) {
    if (slot[n] >= 0)
        close(slot[n]);
    slot[n] = fd;
    if (n >= slots_used)
        slots_used = n + 1;
}

/* ---- paths inside a root ------------------------------------------------------------------------------------------- */

static int open_inside(int root, const char *path, uint64_t flags, uint64_t mode) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int fd, tries = 0;
    do /* EAGAIN: a rename raced with a ".." (openat2(2)) */
        fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && ++tries < MAX_TRIES);
    return fd;
}

/* A name in a directory, which is no link. What was made a moment ago may have been replaced by one. */
static int open_entry(int directory, const char *name) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, directory, name, &how, sizeof how);
}

/* `path` is cut where it is split and must be writable. The usual case, all there or only the last name missing, is quick. */
static int ensure_entry(int root, char *path, int directory, mode_t mode) {
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
        parent = ensure_entry(root, path, 1, 0755);
        if (parent < 0)
            return -1;
    }
    int made = directory ? mkdirat(parent, name, mode) : mknodat(parent, name, S_IFREG | mode, 0);
    if (made == 0 || errno == EEXIST) {
        fd = open_entry(parent, name);
        if (fd < 0 && errno == ELOOP)
            errno = ENOENT; /* a dangling link on the way: refuse, don't guess */
    }
    int error = errno;
    if (parent != root)
        close(parent);
    return errno = error, fd;
}

/* Make `path` under `root` where it is missing, with the directories before it, each opened in the root; give it as O_PATH. */
static int ensure(int root, const char *path, int directory, mode_t mode) {
    char part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part)
        return errno = ENAMETOOLONG, -1;
    memcpy(part, path, n + 1);
    return ensure_entry(root, part, directory, mode);
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static void step_wait_maps(void) {
    char go;
    ssize_t n;
    do
        n = read(go_fd, &go, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        _exit(125); /* the launcher is gone, or could not write the maps and has said so */
    close(go_fd);
    go_fd = -1;
}

static void wait_supervisor(void) {
    char go;
    ssize_t n;
    do
        n = read(sync_fd, &go, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1 || go != 'g')
        _exit(125); /* the supervisor is gone, or found a difference and says so itself */
}

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Close everything above 2 but these. */
static void close_all_but(int *keep, int n) {
    qsort(keep, (size_t)n, sizeof *keep, by_value);
    unsigned from = 3;
    for (int i = 0; i < n; i++) {
        if (keep[i] < 3)
            continue;
        if ((unsigned)keep[i] > from)
            check(syscall(SYS_close_range, from, (unsigned)keep[i] - 1, 0));
        from = (unsigned)keep[i] + 1;
    }
    check(syscall(SYS_close_range, from, ~0u, 0));
}

/* Everything above 2 that is not of this launch goes, before any path is looked at: other containers' pidfds and the like.
 * The step STDIO has put this launch's own over 0 to 2 before. */
static void step_close_others(void) {
    int keep[SLOTS + 8], n = 0;
    for (int i = 0; i < slots_used; i++)
        if (slot[i] >= 0)
            keep[n++] = slot[i];
    keep[n++] = sync_fd;
    if (go_fd >= 0)
        keep[n++] = go_fd;
    close_all_but(keep, n);
}

static void step_set_ids(void) {
    uid_t uid = (uid_t)number();
    gid_t gid = (gid_t)number();
    int set_groups = (int)number(), keep = (int)number();
    gid_t groups[256];
    int n = (int)number();
    if (n > 256)
        failed_with(EINVAL);
    for (int i = 0; i < n; i++)
        groups[i] = (gid_t)number();
    if (keep)
        check(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
    if (set_groups)
        check(syscall(SYS_setgroups, (long)n, groups));
    check(syscall(SYS_setresgid, gid, gid, gid));
    check(syscall(SYS_setresuid, uid, uid, uid));
    if (keep)
        check(prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0));
}

static void step_open(void) {
    int to = slot_number();
    const char *path = text();
    uint64_t flags = number();
    put(to, check(open(path, (int)flags | O_CLOEXEC)));
}

static void step_open_in(void) {
    int to = slot_number(), root = descriptor();
    const char *path = text();
    uint64_t flags = number();
    put(to, check(open_inside(root, path, flags, 0)));
}

static void step_clone_tree(void) {
    int to = slot_number(), from = descriptor();
    unsigned recursive = number() ? AT_RECURSIVE : 0;
    put(to, check(syscall(SYS_open_tree, from, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | recursive)));
}

static void step_filesystem(void) {
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

static void attach(int tree, int target) {
    check(syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

static void step_attach(void) {
    int tree = descriptor();
    attach(tree, descriptor());
}

static void set_attributes(int mount, uint64_t set, uint64_t clear, uint64_t propagation, unsigned recursive) {
    struct mount_attr a = {.attr_set = set, .attr_clr = clear, .propagation = propagation};
    check(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &a, sizeof a));
}

static void step_set_attributes(void) {
    int mount = descriptor();
    uint64_t set = number(), clear = number(), propagation = number();
    set_attributes(mount, set, clear, propagation, (unsigned)number());
}

/* Take read-only from the top of a tree again, so that mount points can be made; a mount that the host locked stays so. */
static void step_writable_top(void) {
    struct mount_attr a = {.attr_clr = MOUNT_ATTR_RDONLY};
    if (syscall(SYS_mount_setattr, descriptor(), "", AT_EMPTY_PATH, &a, sizeof a) < 0 && errno != EPERM)
        failed();
}

static void step_ensure(void) {
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
static void step_ensure_like(void) {
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
static void step_ensure_real(void) {
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
static void step_refuse_link(void) {
    int root = descriptor();
    const char *name = text();
    struct stat s;
    if (fstatat(root, name, &s, AT_SYMLINK_NOFOLLOW) == 0) {
        if (S_ISLNK(s.st_mode))
            failed_with(ELOOP);
    } else if (errno != ENOENT)
        failed();
}

static void step_make_node(void) {
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

/* Where mknod is refused, in a user namespace, a device is the host's own node, bound: only if it is the device meant. */
static void step_bind_node(void) {
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

static void step_make_link(void) {
    int directory = descriptor();
    const char *name = text();
    check(symlinkat(text(), directory, name));
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
static void step_mask(void) {
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

static void step_read_only(void) {
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

static void step_write_file(void) {
    int directory = descriptor();
    const char *name = text();
    mode_t mode = (mode_t)number();
    uint64_t n;
    const char *data = bytes(&n);
    int fd = check(open_inside(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode & 07777));
    write_all(fd, data, n);
    close(fd);
}

/* A null device that came from the host is a file of the host: who owns it inside could chmod it for all the host. The
 * container's own takes its place. */
static void own_null(int fd) {
    struct stat s, own;
    if (fstat(fd, &s) < 0 || !S_ISCHR(s.st_mode) || s.st_rdev != makedev(1, 3))
        return;
    int access = fcntl(fd, F_GETFL) & O_ACCMODE;
    int null = open("/dev/null", access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (null < 0)
        return; /* a container without devices of its own */
    if (fstat(null, &own) == 0 && S_ISCHR(own.st_mode) && own.st_rdev == s.st_rdev) {
        check(fcntl(null, F_SETFL, 0));
        check(dup3(null, fd, 0));
    }
    close(null);
}

/* What was opened on the way here leads back to the host, or out of the root's mounts: it goes with the old root. In a PID
 * namespace that is shared, someone could otherwise find it in /proc/PID/fd while this process stands ready. */
static void step_pivot(void) {
    int root = descriptor();
    check(fchdir(root));
    check(syscall(SYS_pivot_root, ".", "."));
    check(syscall(SYS_umount2, ".", 2 /* MNT_DETACH */)); /* "." is now the old root, on top of the new one (pivot_root(2), NOTES) */
    check(chdir("/"));
    pivoted = 1;
    for (int i = 0; i < slots_used && i < KEPT_SLOTS; i++)
        put(i, -1);
    for (int i = 0; i < 3; i++)
        own_null(i);
}

static void step_keyring(void) {
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL) < 0 && errno != ENOSYS)
        failed(); /* ENOSYS: a kernel without keyrings has none to leak */
}

static void step_rlimit(void) {
    int resource = (int)number();
    struct rlimit now, wanted;
    wanted.rlim_cur = number();
    wanted.rlim_max = number();
    check(getrlimit((__rlimit_resource_t)resource, &now));
    if (now.rlim_cur != wanted.rlim_cur || now.rlim_max != wanted.rlim_max) /* already so: needs no CAP_SYS_RESOURCE */
        check(setrlimit((__rlimit_resource_t)resource, &wanted));
}

static void write_path(int root, const char *path, const char *value, uint64_t n) {
    int fd = check(root < 0 ? open(path, O_WRONLY | O_CLOEXEC) : open_inside(root, path, O_WRONLY, 0));
    ssize_t done = write(fd, value, n);
    if (done != (ssize_t)n)
        failed_with(done < 0 ? errno : EIO);
    close(fd);
}

static void step_sysctl(void) {
    int proc = descriptor();
    const char *path = text();
    uint64_t n;
    const char *value = bytes(&n);
    write_path(proc, path, value, n);
}

static void step_oom_score(void) {
    int proc = descriptor();
    const char *value = text();
    char now[16] = "";
    int fd = check(open_inside(proc, "self/oom_score_adj", O_RDONLY, 0));
    ssize_t n = check(read(fd, now, sizeof now - 1));
    close(fd);
    while (n > 0 && now[n - 1] == '\n')
        now[--n] = 0;
    if (strcmp(now, value) != 0)
        write_path(proc, "self/oom_score_adj", value, strlen(value));
}

static void step_bounding(void) {
    uint64_t keep = number();
    for (int c = 0; c < 64; c++)
        if (!(keep >> c & 1) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0) {
            if (errno == EINVAL) /* past the last capability of this kernel */
                break;
            failed();
        }
}

static void step_capabilities(void) {
    uint64_t effective = number(), permitted = number(), inheritable = number();
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    for (int i = 0; i < 2; i++) {
        d[i].effective = (uint32_t)(effective >> 32 * i);
        d[i].permitted = (uint32_t)(permitted >> 32 * i);
        d[i].inheritable = (uint32_t)(inheritable >> 32 * i);
    }
    check(syscall(SYS_capset, &h, d));
}

static void step_ambient(void) {
    uint64_t raise = number();
    check(prctl(PR_CAP_AMBIENT, 4 /* CLEAR_ALL */, 0, 0, 0));
    for (int c = 0; c < 64; c++)
        if (raise >> c & 1)
            check(prctl(PR_CAP_AMBIENT, 2 /* RAISE */, c, 0, 0));
}

/* A pty of the container's own devpts; its other end goes to the supervisor, which relays. No terminal of the host comes in. */
static void step_terminal(void) {
    int dev = descriptor(), to = slot_number();
    uid_t uid = (uid_t)number();
    struct winsize size = {.ws_row = (unsigned short)number()};
    size.ws_col = (unsigned short)number();
    int unlock = 0;
    int master = check(open_inside(dev, "pts/ptmx", O_RDWR | O_NOCTTY, 0));
    check(ioctl(master, TIOCSPTLCK, &unlock));
    int slave = check(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (size.ws_row && size.ws_col)
        check(ioctl(master, TIOCSWINSZ, &size));
    check(fchown(slave, uid, (gid_t)-1));
    check(answer(sync_fd, (struct answer){TERMINAL_MASTER, step_number, 0, 0}, master));
    close(master);
    put(to, slave);
    int console = check(ensure(dev, "console", 0, 0600));
    int tree = check(syscall(SYS_open_tree, slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
    attach(tree, console);
    close(tree);
    close(console);
}

static void step_stdio(void) {
    for (int i = 0; i < 3; i++) { /* ours are above 2: the launcher's own 0 to 2 were taken when they came, and stay taken */
        uint64_t n = number();
        if (n < SLOTS) { /* else it stays as it is */
            check(dup3(slot[n], i, 0));
            if (pivoted)
                own_null(i);
        }
    }
    int terminal = (int)number();
    if (terminal)
        check(ioctl(0, TIOCSCTTY, 0));
}

/* Pipes made by the container's own root, so that they can belong to any id it has; the other ends go to the supervisor.
 * Then opening /dev/stdout or /proc/self/fd/1 by name works for the program's user, whoever that is. */
static void step_own_stdio(void) {
    uid_t uid = (uid_t)number();
    uint64_t which = number();
    for (int i = 0; i < 3; i++) {
        int ends[2];
        if (!(which >> i & 1))
            continue;
        check(pipe2(ends, O_CLOEXEC));
        int mine = i == 0 ? 0 : 1;
        check(fchown(ends[mine], uid, (gid_t)-1));
        check(fchmod(ends[mine], 0666)); /* for a program that changes its user and then opens it by name */
        check(dup3(ends[mine], i, 0));
        check(answer(sync_fd, (struct answer){STREAM, step_number, 0, (uint32_t)i}, ends[!mine]));
        close(ends[0]);
        close(ends[1]);
    }
}

static void load_filter(unsigned flags, const char *program, uint64_t n) {
    if (n % 8 || n / 8 > MAX_FILTER) /* the kernel's length has 16 bits: the start of a longer one must not pass for it */
        failed_with(EINVAL);
    struct sock_fprog p = {.len = (unsigned short)(n / 8), .filter = (struct sock_filter *)(uintptr_t)program};
    check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p));
}

static void step_seccomp(void) {
    unsigned flags = (unsigned)number();
    uint64_t n;
    const char *program = bytes(&n);
    load_filter(flags, program, n);
}

/* CVE-2024-21626: opened inside the root, never through a magic link, and getcwd must name a place below it. */
static void step_working_directory(void) {
    const char *path = text();
    int root = check(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    int fd = check(open_inside(root, path, O_PATH | O_DIRECTORY, 0));
    close(root);
    check(fchdir(fd));
    close(fd);
    static char now[8192];
    if (check(syscall(SYS_getcwd, now, sizeof now)) < 1 || now[0] != '/')
        failed_with(ENOENT);
}

static void step_loopback(void) {
    struct {
        char name[16];
        short flags;
        char rest[22];
    } request = {.name = "lo"};
    int s = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    check(ioctl(s, 0x8913 /* SIOCGIFFLAGS */, &request));
    request.flags |= 1; /* IFF_UP */
    check(ioctl(s, 0x8914 /* SIOCSIFFLAGS */, &request));
    close(s);
}

/* Process 1 of the container: reaps, forwards signals, ends with the program. It has the program's filter and privileges. */
static _Noreturn void be_init(pid_t program, const sigset_t *all) {
    for (;;) {
        int status, signal_number;
        pid_t pid;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
            if (pid == program)
                _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
        if (pid < 0 && errno != EINTR)
            _exit(125); /* ECHILD, or a filter that has no wait4 */
        siginfo_t info;
        signal_number = sigwaitinfo(all, &info);
        if (signal_number < 0 && errno != EINTR)
            _exit(125);
        if (signal_number > 0 && signal_number != SIGCHLD)
            kill(program, signal_number);
    }
}

/* Fork. The parent stays as process 1; the program goes on only when that has closed everything and has its filter and its
 * sets. Before, the program could take process 1 over with ptrace(2), or find the host's root in its /proc/1/fd. */
static void step_init(void) {
    sigset_t all;
    uint64_t flags = number(), n;
    const char *program = bytes(&n);
    const uint8_t *sets = cursor;
    int gate[2];
    char go = 'g';
    if (limit - cursor < 24)
        failed_with(EBADMSG);
    cursor += 24;
    check(pipe2(gate, O_CLOEXEC));
    sigfillset(&all);
    check(sigprocmask(SIG_SETMASK, &all, NULL));
    pid_t pid = check(fork());
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        close(gate[1]);
        if (read(gate[0], &go, 1) != 1) /* all signals are blocked */
            _exit(125);
        close(gate[0]);
        check(sigprocmask(SIG_SETMASK, &none, NULL));
        return;
    }
    int keep[] = {sync_fd, gate[1]};
    close_all_but(keep, 2);
    if (n)
        load_filter((unsigned)flags, program, n);
    cursor = sets; /* what execve does to the program's sets is done to ours here: never more than the program has */
    step_capabilities();
    check(close(sync_fd)); /* refused by a filter without close(2): then the gate stays shut */
    if (write(gate[1], &go, 1) != 1)
        _exit(125);
    close(gate[1]);
    be_init(pid, &all);
}

static void step_execute(void) {
    static const char *words[65536], *places[256];
    uint64_t counts[3];
    const char **to = words;
    for (int i = 0; i < 3; i++)
        counts[i] = number();
    if (counts[0] > 255 || counts[1] < 1 || counts[1] > 65530 || counts[2] > 65530 - counts[1])
        failed_with(E2BIG);
    for (uint64_t i = 0; i < counts[0]; i++)
        places[i] = text();
    for (uint64_t i = 0; i < counts[1]; i++)
        *to++ = text();
    *to++ = NULL;
    const char **environment = to;
    for (uint64_t i = 0; i < counts[2]; i++)
        *to++ = text();
    *to = NULL;
    int error = ENOENT;
    for (uint64_t i = 0; i < counts[0]; i++) {
        execve(places[i], (char *const *)words, (char *const *)environment);
        if (errno != ENOENT && errno != ENOTDIR)
            error = errno;
    }
    failed_with(error);
}

/* Receive one packet with its descriptors. */
static ssize_t receive(int socket, void *packet, size_t size, int *received, int *count) {
    static union {
        struct cmsghdr header;
        char space[CMSG_SPACE(253 * sizeof(int))];
    } ancillary;
    struct iovec data = {packet, size};
    struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    ssize_t n;
    do
        n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    *count = 0;
    if (n > 0)
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
                *count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                memcpy(received, CMSG_DATA(c), (size_t)*count * sizeof(int));
            }
    return n;
}

/* The steps in a memfd, where they are longer than a packet can be. */
static void *map_steps(int fd, uint32_t length) {
    struct stat s;
    if (fstat(fd, &s) < 0 || !length || (uint64_t)s.st_size < length) /* a page that isn't there is SIGBUS */
        return errno = EBADMSG, MAP_FAILED;
    return mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
}

/* Stand ready until the supervisor has compared. Its word may bring the last steps and their descriptors: a process can be
 * made ready before it is known what it will execute. */
static void step_ready(void) {
    static uint8_t packet[MAX_PACKET];
    struct go go;
    int received[256], count, first = slot_number();
    check(answer(sync_fd, (struct answer){PREPARED, step_number, 0, 0}, -1));
    ssize_t n = receive(sync_fd, packet, sizeof packet, received, &count);
    if (n < (ssize_t)sizeof go)
        _exit(125); /* the supervisor is gone, or found a difference and says so itself */
    memcpy(&go, packet, sizeof go);
    if (go.magic != MAGIC || (uint64_t)count != (uint64_t)go.descriptors + (go.in_memfd ? 1 : 0) || first + count > SLOTS)
        failed_with(EBADMSG);
    for (uint32_t i = 0; i < go.descriptors; i++)
        put(first + (int)i, received[i]);
    tail = packet + sizeof go;
    if (go.in_memfd) {
        void *mapped = map_steps(received[count - 1], go.length);
        if (mapped == MAP_FAILED)
            failed();
        tail = mapped;
        close(received[count - 1]);
    } else if ((size_t)n != sizeof go + go.length)
        failed_with(EBADMSG);
    tail_length = go.length;
}

static void take(enum op op) {
    switch (op) {
    case OP_WAIT_MAPS: return step_wait_maps();
    case OP_WAIT_SUPERVISOR: return wait_supervisor();
    case OP_CLOSE_OTHERS: return step_close_others();
    case OP_DEATH_SIGNAL: check(prctl(PR_SET_PDEATHSIG, number(), 0, 0, 0)); return;
    case OP_SET_IDS: return step_set_ids();
    case OP_UNSHARE: check(syscall(SYS_unshare, number())); return;
    case OP_JOIN: { int fd = descriptor(); check(setns(fd, (int)number())); return; }
    case OP_PROPAGATION: { const char *path = text(); check(syscall(SYS_mount, NULL, path, NULL, number(), NULL)); return; }
    case OP_OPEN: return step_open();
    case OP_OPEN_IN: return step_open_in();
    case OP_CLONE_TREE: return step_clone_tree();
    case OP_FILESYSTEM: return step_filesystem();
    case OP_ATTACH: return step_attach();
    case OP_SET_ATTRIBUTES: return step_set_attributes();
    case OP_WRITABLE_TOP: return step_writable_top();
    case OP_ENSURE: return step_ensure();
    case OP_ENSURE_LIKE: return step_ensure_like();
    case OP_ENSURE_REAL: return step_ensure_real();
    case OP_BIND_NODE: return step_bind_node();
    case OP_REFUSE_LINK: return step_refuse_link();
    case OP_MAKE_NODE: return step_make_node();
    case OP_MAKE_LINK: return step_make_link();
    case OP_MASK: return step_mask();
    case OP_READ_ONLY: return step_read_only();
    case OP_WRITE_FILE: return step_write_file();
    case OP_PIVOT: return step_pivot();
    case OP_SESSION: check(setsid()); return;
    case OP_KEYRING: return step_keyring();
    case OP_RLIMIT: return step_rlimit();
    case OP_HOSTNAME: { const char *name = text(); check(sethostname(name, strlen(name))); return; }
    case OP_DOMAINNAME: { const char *name = text(); check(setdomainname(name, strlen(name))); return; }
    case OP_SYSCTL: return step_sysctl();
    case OP_OOM_SCORE: return step_oom_score();
    case OP_UMASK: umask((mode_t)number()); return;
    case OP_BOUNDING: return step_bounding();
    case OP_SECUREBITS: check(prctl(PR_SET_SECUREBITS, number(), 0, 0, 0)); return;
    case OP_CAPABILITIES: return step_capabilities();
    case OP_AMBIENT: return step_ambient();
    case OP_NO_NEW_PRIVS: check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); return;
    case OP_DUMPABLE: check(prctl(PR_SET_DUMPABLE, number(), 0, 0, 0)); return;
    case OP_TERMINAL: return step_terminal();
    case OP_STDIO: return step_stdio();
    case OP_OWN_STDIO: return step_own_stdio();
    case OP_SECCOMP: return step_seccomp();
    case OP_WORKING_DIRECTORY: return step_working_directory();
    case OP_READY: return step_ready();
    case OP_INIT: return step_init();
    case OP_EXECUTE: return step_execute();
    case OP_LOOPBACK: return step_loopback();
    default: failed_with(EBADMSG); /* CLONE, PLACE and WRITE_MAPS are the launcher's own */
    }
}

/* The next step of the list at the cursor; false at its end. */
static int next_step(uint32_t *op, const uint8_t **end) {
    if (limit - cursor < 8)
        return 0;
    uint32_t size;
    memcpy(op, cursor, 4);
    memcpy(&size, cursor + 4, 4);
    cursor += 8;
    if (size > (uint64_t)(limit - cursor) || size % 8)
        return 0;
    *end = cursor + size;
    return 1;
}

static _Noreturn void walk(const uint8_t *from, const uint8_t *to) {
    uint32_t op;
    const uint8_t *end;
    for (cursor = from, limit = to; cursor; cursor = tail, limit = tail + tail_length, tail = NULL)
        while (next_step(&op, &end)) {
            const uint8_t *all = limit;
            limit = end;
            take((enum op)op);
            if (cursor != end)
                failed_with(EBADMSG);
            limit = all;
            step_number++;
        }
    failed_with(ENOEXEC); /* a plan that does not execute anything */
}

/* ---- the launcher's own part ---------------------------------------------------------------------------------------- */

static void proc_path(char path[64], pid_t pid, const char *name) {
    char digits[12];
    int n = 0;
    size_t at = 6;
    memcpy(path, "/proc/", at);
    for (pid_t p = pid; p; p /= 10)
        digits[n++] = (char)('0' + p % 10);
    while (n)
        path[at++] = digits[--n];
    path[at++] = '/';
    strcpy(path + at, name); /* names are ours, the longest is 9 bytes */
}

static int write_proc(pid_t pid, const char *name, const char *value) {
    char path[64];
    proc_path(path, pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t done = write(fd, value, strlen(value));
    int error = done < 0 ? errno : EIO;
    close(fd);
    return done == (ssize_t)strlen(value) ? 0 : (errno = error, -1);
}

static pid_t clone_child(uint64_t flags, int cgroup, int *pidfd) {
    struct clone_args a = {.flags = flags | CLONE_PARENT | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)pidfd};
    if (cgroup >= 0) {
        a.flags |= CLONE_INTO_CGROUP;
        a.cgroup = (uint64_t)cgroup;
    }
    return (pid_t)syscall(SYS_clone3, &a, sizeof a);
}

/* Write the pid into a cgroup.procs that the supervisor opened. */
static int place(int fd, pid_t pid) {
    char digits[12];
    int n = (int)sizeof digits;
    for (pid_t p = pid; p; p /= 10)
        digits[--n] = (char)('0' + p % 10);
    return write(fd, digits + n, sizeof digits - (size_t)n) < 0 ? -1 : 0;
}

/* Shift the ids of a detached tree by the map of the child's user namespace. The child has the same open file of it. */
static int idmap(int tree, pid_t pid) {
    char path[64];
    proc_path(path, pid, "ns/user");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    struct mount_attr a = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)fd};
    int result = (int)syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof a), error = errno;
    close(fd);
    return errno = error, result;
}

/* ---- control groups whose processes must end with the first one (step GUARD) ---------------------------------------- */

static int write_in(int directory, const char *name, const char *value) {
    int fd = openat(directory, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t done = write(fd, value, strlen(value));
    close(fd);
    return done < 0 ? -1 : 0;
}

static void pause_for(long milliseconds) {
    struct timespec t = {0, milliseconds * 1000000};
    nanosleep(&t, NULL);
}

/* A v1 group stands still while it is signalled, so that a fork bomb can't outrun the signals. A task in uninterruptible
 * sleep holds that up, so it is not waited for long; the next round comes anyway. */
static void freeze(int directory) {
    for (int tries = 0; tries < 50; tries++) {
        char state[16] = "";
        if (write_in(directory, "freezer.state", "FROZEN") < 0)
            return;
        int fd = openat(directory, "freezer.state", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return;
        ssize_t n = read(fd, state, sizeof state - 1);
        close(fd);
        if (n > 0 && strncmp(state, "FROZEN", 6) == 0)
            return;
        pause_for(1);
    }
}

/* Kill the processes of one group: how many there were. 0 stands for one that is not seen from our PID namespace. */
static int kill_members(int directory) {
    static char buffer[65536];
    int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC), count = 0;
    if (fd < 0)
        return 0;
    long pid = 0;
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        for (ssize_t i = 0; i < n; i++)
            if (buffer[i] >= '0' && buffer[i] <= '9')
                pid = pid * 10 + buffer[i] - '0';
            else {
                if (pid > 1 && pid != getpid())
                    count += kill((pid_t)pid, SIGKILL) == 0;
                pid = 0;
            }
    close(fd);
    return count;
}

/* The same for a group and all groups in it; a privileged payload may have made some. */
static int kill_tree(int directory, int depth) {
    int count = kill_members(directory), fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    if (!listing) {
        close(fd);
        return count;
    }
    for (struct dirent *entry; depth && (entry = readdir(listing));)
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
            int below = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) {
                count += kill_tree(below, depth - 1);
                close(below);
            }
        }
    closedir(listing);
    return count;
}

/* Empty a group. cgroup.kill (v2, Linux 5.14) is one word that no fork escapes; elsewhere in rounds, until none is left. */
static void kill_group(int directory) {
    if (write_in(directory, "cgroup.kill", "1") == 0)
        return;
    for (int round = 0; round < KILL_ROUNDS; round++) {
        freeze(directory);
        int count = kill_tree(directory, 64);
        write_in(directory, "freezer.state", "THAWED");
        if (!count)
            return;
        pause_for(2);
    }
}

static void kill_groups(int groups[GUARDS]) {
    for (int i = 0; i < GUARDS; i++)
        if (groups[i] >= 0) {
            kill_group(groups[i]);
            close(groups[i]);
            groups[i] = -1;
        }
}

/* Nothing that this process guards outlives it. */
static void kill_all(void) {
    for (int i = 1; i <= child_count; i++)
        syscall(SYS_pidfd_send_signal, children[i].fd, SIGKILL, NULL, 0);
    for (int i = 1; i <= child_count; i++)
        kill_groups(guards[i]);
}

struct launched {
    pid_t pid;
    int pidfd, go[2], guards[GUARDS];
};

/* Keep the directory of a control group for as long as this process lives and the first one of the container does. */
static int guard(struct launched *l, int directory) {
    for (int i = 0; i < GUARDS; i++)
        if (l->guards[i] < 0)
            return l->guards[i] = fcntl(directory, F_DUPFD_CLOEXEC, 3);
    return errno = E2BIG, -1;
}

/* One step of the first list. Errors come back as -1 with errno, as the process that failed is not the container. */
static int parent_step(uint32_t op, struct launched *l, const uint8_t *child_from, const uint8_t *child_to, uint32_t steps) {
    if (op == OP_CLONE) {
        uint64_t flags = number(), cgroup = number();
        if (child_count == MAX_CHILDREN) /* one that can't be remembered would outlive its supervisor */
            return errno = EAGAIN, -1;
        int group = cgroup < SLOTS ? slot[cgroup] : -1;
        l->pid = clone_child(flags, group, &l->pidfd);
        if (l->pid == 0) {
            in_child = 1;
            go_fd = l->go[0];
            close(l->go[1]);
            setrlimit(RLIMIT_NOFILE, &caller_files);
            step_number = steps;
            walk(child_from, child_to);
        }
        return l->pid < 0 ? -1 : 0;
    }
    if (op == OP_GUARD)
        return guard(l, descriptor()) < 0 ? -1 : 0;
    if (op == OP_PLACE)
        return place(descriptor(), l->pid);
    if (op == OP_WRITE_MAPS) {
        const char *uids = text(), *gids = text();
        if (number() && write_proc(l->pid, "setgroups", "deny") < 0)
            return -1;
        return write_proc(l->pid, "uid_map", uids) < 0 || write_proc(l->pid, "gid_map", gids) < 0 ? -1 : 0;
    }
    if (op == OP_IDMAP)
        return idmap(descriptor(), l->pid);
    return errno = EBADMSG, -1;
}

static void remember(const struct launched *l) {
    children[++child_count] = (struct pollfd){.fd = l->pidfd, .events = POLLIN};
    memcpy(guards[child_count], l->guards, sizeof l->guards);
}

static void forget(int i) {
    close(children[i].fd);
    kill_groups(guards[i]);
    children[i] = children[child_count];
    memcpy(guards[i], guards[child_count--], sizeof guards[i]);
}

static void launch(const uint8_t *plan, const struct header *h) {
    struct launched l = {.pid = -1, .pidfd = -1, .go = {-1, -1}, .guards = {-1, -1}};
    const uint8_t *end = plan + h->length, *from = plan + h->parent_steps;
    uint32_t op;
    const uint8_t *next;
    step_number = 0;
    cursor = plan;
    limit = from;
    int failed_step = pipe2(l.go, O_CLOEXEC) < 0;
    while (!failed_step && next_step(&op, &next)) {
        const uint8_t *all = limit;
        limit = next;
        failed_step = parent_step(op, &l, from, end, h->child_steps) < 0;
        cursor = next;
        limit = all;
        step_number += !failed_step;
    }
    if (failed_step) {
        int error = errno;
        if (l.pidfd >= 0)
            syscall(SYS_pidfd_send_signal, l.pidfd, SIGKILL, NULL, 0);
        answer(sync_fd, (struct answer){FAILED, step_number, error, l.pid > 0 ? (uint32_t)l.pid : 0}, l.pidfd);
        close(l.pidfd);
        kill_groups(l.guards);
    } else {
        remember(&l);
        answer(sync_fd, (struct answer){CLONED, step_number, 0, (uint32_t)l.pid}, l.pidfd);
        if (write(l.go[1], "g", 1) < 0)
            syscall(SYS_pidfd_send_signal, l.pidfd, SIGKILL, NULL, 0);
    }
    close(l.go[0]);
    close(l.go[1]);
}

/* Take one packet: the header and steps in the packet, or in a memfd when they are longer than a packet can be. */
static int serve(int control) {
    static uint8_t packet[MAX_PACKET];
    int received[256], count;
    static ssize_t before;
    ssize_t n = receive(control, packet, sizeof packet, received, &count);
    if (n < 0)
        return errno == EAGAIN;
    if (n < before) /* of a longer plan, with another container's environment: an init keeps this memory */
        memset(packet + n, 0, (size_t)(before - n));
    before = n;
    struct header h;
    if (n < (ssize_t)sizeof h)
        return 0;
    memcpy(&h, packet, sizeof h);
    uint64_t expected = (uint64_t)h.descriptors + 1 + (h.in_memfd ? 1 : 0);
    if (h.magic != MAGIC || (uint64_t)count != expected || h.parent_steps > h.length)
        return 0;
    const uint8_t *plan = packet + sizeof h;
    void *mapped = MAP_FAILED;
    sync_fd = received[0];
    if (h.in_memfd) {
        mapped = map_steps(received[1], h.length);
        if (mapped == MAP_FAILED)
            return 0;
        plan = mapped;
    } else if ((size_t)n != sizeof h + h.length)
        return 0;
    for (int i = 0; i < SLOTS; i++)
        slot[i] = -1;
    slots_used = (int)h.descriptors;
    memcpy(slot, received + count - h.descriptors, h.descriptors * sizeof(int));
    launch(plan, &h);
    if (mapped != MAP_FAILED)
        munmap(mapped, h.length);
    for (int i = 0; i < count; i++)
        close(received[i]);
    return 1;
}

int main(void) {
    sigset_t none;
    sigemptyset(&none);
    for (int s = 1; s < NSIG; s++) /* the interpreter ignores SIGPIPE; no program in a container should inherit that */
        signal(s, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_NAME, "stockade-init", 0, 0, 0);
    umask(0);
    if (chdir("/") < 0) /* the caller's working directory stays the caller's */
        return 1;
    getrlimit(RLIMIT_NOFILE, &caller_files);
    struct rlimit all_files = {caller_files.rlim_max, caller_files.rlim_max};
    setrlimit(RLIMIT_NOFILE, &all_files);
    children[0] = (struct pollfd){.fd = 0, .events = POLLIN};
    for (;;) {
        if (poll(children, (nfds_t)child_count + 1, -1) < 0 && errno != EINTR)
            return 1;
        for (int i = child_count; i > 0; i--)
            if (children[i].revents) /* ended: a pidfd is readable then */
                forget(i);
        if (children[0].revents & POLLIN) {
            if (!serve(0))
                break;
        } else if (children[0].revents)
            break;
    }
    kill_all();
    return 0;
}
