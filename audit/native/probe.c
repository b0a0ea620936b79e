// SPDX-License-Identifier: Apache-2.0
/*
 * The probe: takes on a target's namespaces and credentials, opens control files, answers, ends.
 *
 * It is executed once per audit from a sealed memfd, with a SOCK_SEQPACKET socket whose number is its argument. The first
 * packet names, after one byte, the files of a sweep. Each later one is a request, with three descriptors by SCM_RIGHTS: a pidfd of the
 * target, its root directory, the pipe for the answer. For each a child is forked, which is what this program is for: a
 * child costs a twentieth of one that is forked from Python. audit/probe.py is the other half and knows the layouts.
 *
 * Rules that everything after the joining keeps, because the mount namespace it works in is hostile:
 *
 * - Control files are opened O_WRONLY and closed. Never a write, never O_CREAT or O_TRUNC.
 * - Only files of procfs, sysfs, cgroupfs and binfmt_misc are opened. The file system is told from a descriptor that is
 *   already there (O_PATH opens nothing) and files below it are reached with RESOLVE_NO_XDEV, so that a FIFO, a device or
 *   a FUSE file that was mounted over the path is refused and never opened.
 * - Nothing is executed or loaded; the pid namespace is not joined, so that the container does not see this process; it is
 *   not dumpable, so that one which shares the host's pid namespace can't trace it; it dumps no core and holds only its
 *   pipe. A timer ends it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <linux/securebits.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef ST_RDONLY
#define ST_RDONLY 1
#endif
#ifndef ST_NODEV
#define ST_NODEV 4
#endif

enum { LIFETIME = 5, MAX_PACKET = 1 << 18, MAX_ANSWER = 1 << 21, MAX_DEVICES = 4096, MAX_DIRECTORIES = 1024 };
enum flag { CHROOT = 1, SWEEP = 2, INSIDE = 4, NO_NEW_PRIVS = 8 };

struct ids {
    uint32_t uids[4], gids[4]; /* real, effective, saved, file system */
    uint32_t groups;
};

/* audit/probe.py packs it. After it: the groups of the host and those inside, then the strings, each with its NUL. */
struct request {
    uint32_t join, flags;
    struct ids outside, inside;
    uint32_t writes, reads, sockets, nodes;
    uint64_t bounding, effective, inheritable, permitted;
};

/* One byte for each file of the sweep, two for the errno of each other file, one for each socket; then the devices. */
struct answer {
    int32_t error;   /* errno when the target can't be become */
    int32_t devices; /* how many, or minus the errno of /dev */
    int32_t peers;   /* how many pairs, or -1 where that was not asked or can't be */
    int32_t label;   /* whether the security module's label was taken on */
};

struct device {
    uint32_t major, minor;
    uint8_t block, usable;
    uint16_t length; /* of the path, which follows */
};

static _Alignas(8) char packet[MAX_PACKET], swept[MAX_PACKET], answer[MAX_ANSWER], datagram[1 << 18];
static size_t swept_size, answered;
static int links; /* /proc/self/fd of the host's procfs: links there reopen what an O_PATH descriptor holds */

static void *put(const void *data, size_t size)
{
    if (answered + size > sizeof answer)
        _exit(1);
    void *place = answer + answered;
    if (data)
        memcpy(place, data, size);
    answered += size;
    return place;
}

/* The next string of a packet, or the end of this process for a packet that is cut. */
static const char *next(const char **place, const char *end)
{
    const char *string = *place;
    size_t length = strnlen(string, (size_t)(end - string));
    if (string + length >= end)
        _exit(1);
    *place += length + 1;
    return string;
}

static void harden(void)
{
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
}

static void close_all_but(int kept)
{
    if (kept > 0)
        syscall(SYS_close_range, 0, kept - 1, 0);
    syscall(SYS_close_range, kept + 1, ~0U, 0);
}

static int open_how(int directory, const char *path, int flags, uint64_t resolve)
{
    struct open_how how = {.flags = (uint64_t)flags | O_CLOEXEC, .resolve = resolve};
    return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

/* --- becoming the target ------------------------------------------------------------------------------------------ */

static int take_ids(const struct ids *ids, const gid_t *groups)
{
    if (syscall(SYS_setgroups, (size_t)ids->groups, groups) < 0) {
        /* Denied where it was switched off, and not needed where there is nothing to change. */
        int error = errno, count = getgroups(0, NULL);
        gid_t own[65536 / sizeof(gid_t)];
        if (count != (int)ids->groups || getgroups(sizeof own / sizeof *own, own) != count)
            return errno = error, -1;
        for (int i = 0; i < count; i++) {
            int found = 0;
            for (int j = 0; j < count && !found; j++)
                found = own[i] == groups[j];
            if (!found)
                return errno = error, -1;
        }
    }
    if (syscall(SYS_setresgid, ids->gids[0], ids->gids[1], ids->gids[2]) < 0)
        return -1;
    syscall(SYS_setfsgid, ids->gids[3]);
    if (syscall(SYS_setresuid, ids->uids[0], ids->uids[1], ids->uids[2]) < 0)
        return -1;
    syscall(SYS_setfsuid, ids->uids[3]);
    return 0;
}

static int same_ids(const struct ids *ids)
{
    uid_t u[3];
    gid_t g[3];
    getresuid(&u[0], &u[1], &u[2]);
    getresgid(&g[0], &g[1], &g[2]);
    return !memcmp(u, ids->uids, sizeof u) && !memcmp(g, ids->gids, sizeof g);
}

static uint64_t capabilities(struct __user_cap_header_struct *header, struct __user_cap_data_struct data[2])
{
    *header = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 0};
    if (syscall(SYS_capget, header, data) < 0)
        return 0;
    return data[0].effective | (uint64_t)data[1].effective << 32;
}

static int take_capabilities(const struct request *wanted)
{
    struct __user_cap_header_struct header;
    struct __user_cap_data_struct data[2] = {0};
    if (capabilities(&header, data) >> CAP_SETPCAP & 1)
        for (int each = 0; each < 64; each++)
            if (!(wanted->bounding >> each & 1) && prctl(PR_CAPBSET_DROP, each, 0, 0, 0) < 0)
                break; /* above the last capability of this kernel */
    if (wanted->flags & NO_NEW_PRIVS)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    /* An auditor that lacks a capability can't lend it. */
    for (int half = 0; half < 2; half++) {
        uint32_t permitted = data[half].permitted;
        data[half].effective = (uint32_t)(wanted->effective >> 32 * half) & permitted;
        data[half].permitted = (uint32_t)(wanted->permitted >> 32 * half) & permitted;
        data[half].inheritable = (uint32_t)(wanted->inheritable >> 32 * half) & permitted;
    }
    return (int)syscall(SYS_capset, &header, data);
}

static int label_file(void)
{
    int file = open("/proc/thread-self/attr/apparmor/current", O_WRONLY | O_CLOEXEC);
    return file >= 0 ? file : open("/proc/thread-self/attr/current", O_WRONLY | O_CLOEXEC);
}

static int take_label(int file, const char *label)
{
    static const char word[] = "changeprofile ";
    char text[4096];
    size_t length = strlen(label);
    if (!length)
        return 1;
    if (file < 0 || length > sizeof text - sizeof word)
        return 0;
    memcpy(text, word, sizeof word - 1);
    memcpy(text + sizeof word - 1, label, length);
    length += sizeof word - 1;
    int taken = write(file, text, length) == (ssize_t)length;
    close(file);
    return taken;
}

/* Joins, changes root, takes ids and capabilities. Gives whether the label was taken on, or -1. */
static int become(const struct request *wanted, const gid_t *groups, const char *label, int pidfd, int root)
{
    struct __user_cap_header_struct header;
    struct __user_cap_data_struct data[2] = {0};
    uint64_t needed = 1 << CAP_SETGID | 1 << CAP_SETUID | 1 << CAP_SETPCAP;
    int outside = (capabilities(&header, data) & needed) == needed;
    int file = *label ? label_file() : -1;
    /* Ids first, by their host numbers: some may have no name inside, and setgroups(2) may be denied there. The securebit
       keeps the capabilities over the change. */
    if (outside && (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0 || take_ids(&wanted->outside, groups) < 0))
        return -1;
    if (wanted->join && setns(pidfd, (int)wanted->join) < 0)
        return -1;
    if (wanted->join & CLONE_NEWUSER && !outside) {
        if (!(wanted->flags & INSIDE)) /* its ids have no name in its user namespace */
            return errno = EINVAL, -1;
        if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0 ||
            take_ids(&wanted->inside, groups + wanted->outside.groups) < 0)
            return -1;
    } else if (!outside && !same_ids(&wanted->outside))
        return errno = EPERM, -1;
    if (wanted->flags & CHROOT && (fchdir(root) < 0 || chroot(".") < 0))
        return -1;
    close(root);
    close(pidfd);
    int taken = take_label(file, label);
    return take_capabilities(wanted) < 0 ? -1 : taken;
}

/* --- control files ------------------------------------------------------------------------------------------------ */

static int is_kernels(long magic)
{
    return magic == PROC_SUPER_MAGIC || magic == SYSFS_MAGIC || magic == CGROUP_SUPER_MAGIC ||
           magic == CGROUP2_SUPER_MAGIC || magic == BINFMTFS_MAGIC;
}

enum { FLAGS = O_NONBLOCK | O_NOCTTY | O_NOFOLLOW, NO_LINKS = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS };

/* Opens what an O_PATH descriptor holds, if it is a control file of another mount. Gives the errno or 0. */
static int reopen(int held, int access)
{
    struct statfs fs;
    struct stat status;
    if (fstatfs(held, &fs) < 0 || !is_kernels(fs.f_type) || fstat(held, &status) < 0 || !S_ISREG(status.st_mode))
        return EXDEV;
    char name[12], *place = name + sizeof name;
    *--place = 0;
    for (int rest = held; place == name + sizeof name - 1 || rest; rest /= 10)
        *--place = (char)('0' + rest % 10);
    int file = open_how(links, place, access | (FLAGS & ~O_NOFOLLOW), 0);
    if (file < 0)
        return errno;
    close(file);
    return 0;
}

static int try(int directory, const char *name, int access)
{
    int file = open_how(directory, name, access | FLAGS, NO_LINKS | RESOLVE_BENEATH | RESOLVE_NO_XDEV);
    if (file >= 0)
        return close(file), 0;
    if (errno != EXDEV)
        return errno;
    /* Something is mounted over it. What is it? O_PATH tells without opening it. */
    int held = open_how(directory, name, O_PATH | O_NOFOLLOW, NO_LINKS | RESOLVE_BENEATH);
    if (held < 0)
        return errno;
    int error = reopen(held, access);
    close(held);
    return error;
}

/* Tries `count` files (all up to `end` for -1), which stand in the order of their directories, and puts each answer: a
   byte whether it opened, or two with the errno. A sweep passes over a directory on a read-only mount as a whole. */
static void try_all(const char **place, const char *end, int count, int access, int sweep)
{
    char directory[4096] = "";
    int base = -1, error = 0, skip = 0;
    for (; count && *place < end; count--) {
        const char *path = next(place, end), *name = strrchr(path, '/');
        size_t length = name ? (size_t)(name - path) : sizeof directory;
        if (length >= sizeof directory)
            _exit(1);
        if (memcmp(directory, path, length) != 0 || directory[length]) {
            struct statfs fs;
            if (base >= 0)
                close(base);
            memcpy(directory, path, length);
            directory[length] = 0;
            base = open_how(AT_FDCWD, directory, O_PATH | O_NOFOLLOW, NO_LINKS);
            error = base < 0 ? errno : fstatfs(base, &fs) < 0 || !is_kernels(fs.f_type) ? ENOENT : 0;
            skip = error || fs.f_flags & ST_RDONLY;
        }
        uint16_t number = sweep && skip ? EROFS : (uint16_t)(error ? error : try(base, name + 1, access));
        uint8_t opened = number == 0;
        put(sweep ? (void *)&opened : (void *)&number, sweep ? sizeof opened : sizeof number);
    }
    if (base >= 0)
        close(base);
}

/* --- sockets and devices ------------------------------------------------------------------------------------------ */

static uint8_t may_write(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;
}

/* Puts inode and inode of the other end for each Unix socket of this network namespace; gives how many, or -1. */
static int32_t put_peers(void)
{
    struct {
        struct nlmsghdr header;
        struct unix_diag_req body;
    } ask = {
        .header = {.nlmsg_len = sizeof ask, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = AF_UNIX, .udiag_states = ~0U, .udiag_show = UDIAG_SHOW_PEER},
    };
    int32_t count = 0;
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (netlink < 0 || send(netlink, &ask, sizeof ask, 0) < 0)
        return -1; /* a kernel without CONFIG_UNIX_DIAG */
    for (;;) {
        ssize_t size = recv(netlink, datagram, sizeof datagram, 0);
        if (size <= 0)
            return -1;
        size_t left = (size_t)size;
        for (struct nlmsghdr *each = (void *)datagram; NLMSG_OK(each, left); each = NLMSG_NEXT(each, left)) {
            if (each->nlmsg_type == NLMSG_DONE)
                return close(netlink), count;
            if (each->nlmsg_type == NLMSG_ERROR || each->nlmsg_len < NLMSG_LENGTH(sizeof(struct unix_diag_msg)))
                return -1;
            const struct unix_diag_msg *message = NLMSG_DATA(each);
            const char *place = (const char *)(message + 1), *end = (const char *)each + each->nlmsg_len;
            while (place + sizeof(struct nlattr) + 4 <= end) {
                struct nlattr attribute;
                memcpy(&attribute, place, sizeof attribute);
                if (attribute.nla_type == UNIX_DIAG_PEER) {
                    uint32_t pair[2] = {message->udiag_ino};
                    memcpy(&pair[1], place + sizeof attribute, 4);
                    put(pair, sizeof pair);
                    count++;
                }
                place += attribute.nla_len < 4 ? 4 : NLA_ALIGN(attribute.nla_len);
            }
        }
    }
}

static int accessible(int directory, const char *name, int mode)
{
    long result = syscall(SYS_faccessat2, directory, name, mode, AT_EACCESS | AT_SYMLINK_NOFOLLOW);
    return result == 0 || (errno == ENOSYS && faccessat(directory, name, mode, AT_EACCESS) == 0);
}

static int is_named(const char *path, const char *names, uint32_t count)
{
    for (; count; count--, names += strlen(names) + 1)
        if (!strcmp(path, names))
            return 1;
    return 0;
}

/* Puts a device node; gives whether it is one. A node that is a mount of its own, as rootless engines make /dev/null, has
   flags of its own. */
static int put_device(int directory, const char *name, const char *path, int mounted, int nodev)
{
    struct stat status;
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || !(S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode)))
        return 0;
    if (mounted) {
        struct statfs fs;
        int node = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        nodev = node < 0 || fstatfs(node, &fs) < 0 || fs.f_flags & ST_NODEV;
        if (node >= 0)
            close(node);
    }
    struct device device = {
        .major = major(status.st_rdev), .minor = minor(status.st_rdev), .block = S_ISBLK(status.st_mode),
        .usable = !nodev && (accessible(directory, name, R_OK) || accessible(directory, name, W_OK)),
        .length = (uint16_t)strlen(path),
    };
    put(&device, sizeof device);
    put(path, device.length);
    return 1;
}

static int is_passed_over(const char *name)
{
    return !strcmp(name, "pts") || !strcmp(name, "shm") || !strcmp(name, "mqueue") || !strcmp(name, "hugepages");
}

/* Puts the nodes of /dev and of its directories, two levels down. Looks at names and modes and opens directories only.
   Gives how many, or minus an errno. */
static int32_t put_devices(const char *nodes, uint32_t count)
{
    static struct { char *path; int depth; } queue[MAX_DIRECTORIES] = {{"/dev", 0}};
    int first = 0, last = 1;
    int32_t found = 0;
    for (; first < last && found < MAX_DEVICES; first++) {
        struct statfs fs;
        char *top = queue[first].path;
        int opened = open(top, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        DIR *listing = opened < 0 ? NULL : fdopendir(opened);
        if (!listing && !first)
            return -errno;
        if (!listing)
            continue;
        int nodev = fstatfs(opened, &fs) < 0 || fs.f_flags & ST_NODEV;
        for (struct dirent *entry; found < MAX_DEVICES && (entry = readdir(listing));) {
            struct stat status;
            char path[PATH_MAX];
            const char *name = entry->d_name;
            size_t length = strlen(top), size = strlen(name) + 1;
            if (!strcmp(name, ".") || !strcmp(name, "..") || length + 1 + size > sizeof path)
                continue;
            memcpy(path, top, length);
            path[length] = '/';
            memcpy(path + length + 1, name, size);
            int type = entry->d_type, mounted = is_named(path, nodes, count);
            if (type == DT_UNKNOWN && fstatat(opened, name, &status, AT_SYMLINK_NOFOLLOW) == 0)
                type = IFTODT(status.st_mode);
            if (type == DT_DIR) {
                if (queue[first].depth < 2 && !is_passed_over(name) && last < MAX_DIRECTORIES) {
                    queue[last].path = strdup(path);
                    queue[last].depth = queue[first].depth + 1;
                    last += queue[last].path != NULL;
                }
            } else if (mounted || type == DT_BLK || type == DT_CHR) /* a listing tells what lies under a mount */
                found += put_device(opened, name, path, mounted, nodev);
        }
        closedir(listing);
    }
    return found;
}

/* --- the child, the helper ---------------------------------------------------------------------------------------- */

static void run(size_t size, int pidfd, int root, int pipe)
{
    const struct request *request = (void *)packet;
    const gid_t *groups = (void *)(request + 1);
    const char *place = (const char *)groups, *end = packet + size;
    size_t ids = (size_t)request->outside.groups + request->inside.groups;
    struct answer *head = put(NULL, sizeof *head);

    setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_sec = LIFETIME}, NULL);
    harden();
    if (size < sizeof *request || ids > (size - sizeof *request) / sizeof *groups)
        _exit(1);
    place += ids * sizeof *groups;
    links = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    const char *label = next(&place, end);
    head->label = become(request, groups, label, pidfd, root);
    if (links < 0 || head->label < 0) {
        head->error = errno ? errno : EINVAL;
    } else {
        harden(); /* a change of ids makes a process dumpable again and forgets the parent's death signal */
        const char *sweep = swept + 1;
        if (request->flags & SWEEP)
            try_all(&sweep, swept + swept_size, -1, O_WRONLY, 1);
        try_all(&place, end, (int)request->writes, O_WRONLY, 0);
        try_all(&place, end, (int)request->reads, O_RDONLY, 0);
        for (uint32_t i = 0; i < request->sockets; i++)
            put(&(uint8_t){may_write(next(&place, end))}, 1);
        const char *nodes = place;
        for (uint32_t i = 0; i < request->nodes; i++)
            next(&place, end);
        head->devices = put_devices(nodes, request->nodes);
        size_t before = answered;
        head->peers = request->join & CLONE_NEWNET ? put_peers() : -1;
        if (head->peers < 0)
            answered = before;
    }
    for (size_t sent = 0; sent < answered;) {
        ssize_t written = write(pipe, answer + sent, answered - sent);
        if (written < 0)
            break;
        sent += (size_t)written;
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    int control = argc > 1 ? atoi(argv[1]) : 0;
    harden();
    signal(SIGCHLD, SIG_IGN); /* nobody waits for the children: the kernel reaps them */
    signal(SIGINT, SIG_IGN);  /* Ctrl-C is the auditor's, whose end is ours */
    signal(SIGALRM, SIG_DFL);
    close_all_but(control);
    ssize_t size = recv(control, swept, sizeof swept, 0);
    if (size <= 0)
        return 0;
    swept_size = (size_t)size;
    for (;;) {
        union {
            struct cmsghdr align;
            char space[CMSG_SPACE(3 * sizeof(int))];
        } ancillary;
        struct iovec vector = {packet, sizeof packet};
        struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
        int held[3];
        size = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
        struct cmsghdr *header = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
        if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof held))
            return 0; /* the auditor has ended */
        memcpy(held, CMSG_DATA(header), sizeof held);
        if (fork() == 0) {
            close(control);
            run((size_t)size, held[0], held[1], held[2]);
        }
        for (int i = 0; i < 3; i++)
            close(held[i]);
    }
}
