// SPDX-License-Identifier: Apache-2.0
/*
 * What an attacker in a container tries. `probe ATTEMPT [ARG...]`, several separated by the argument "--"; each writes lines
 * "name: ok", "name: EPERM" or "name: what was found". Compiled statically by probes.py; runs in any root file system.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static const char *word(long result) { return result >= 0 ? "ok" : strerrorname_np(errno); }

static void say(const char *name, long result) { printf("%s: %s\n", name, word(result)); }

static unsigned long number(const char *text) { return strtoul(text, NULL, 0); }

/* fds: the open descriptors above 2 */
static void fds(void) {
    printf("fds:");
    for (int fd = 3; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf(" %d", fd);
    printf("\n");
}

/* cwd MARKER: what getcwd says, and whether a file of the host is reached from there, also climbing */
static void cwd(const char *marker) {
    char path[PATH_MAX] = "", climbing[PATH_MAX];
    if (syscall(SYS_getcwd, path, sizeof path) < 0)
        strcpy(path, strerrorname_np(errno));
    printf("cwd: %s\n", path);
    say("marker", open(marker, O_RDONLY));
    snprintf(climbing, sizeof climbing, "../../../../../../../..%s", marker);
    say("climbing", open(climbing, O_RDONLY));
}

/* session: whether we lead our session and group, and whether there is a terminal */
static void session(void) {
    printf("session: %s\n", getsid(0) == getpid() && getpgrp() == getpid() ? "own" : "foreign");
    say("tty", open("/dev/tty", O_RDWR | O_NOCTTY));
}

/* type FD: TIOCSTI and TIOCLINUX, also with bits that the kernel ignores and a filter may compare */
static void type(int fd) {
    char x = 'x', sub = 3;
    say("TIOCSTI", syscall(SYS_ioctl, fd, 0x5412ul, &x));
    say("TIOCSTI high", syscall(SYS_ioctl, fd, 0x100005412ul, &x));
    say("TIOCSTI higher", syscall(SYS_ioctl, fd, 0xffffffff00005412ul, &x));
    say("TIOCLINUX", syscall(SYS_ioctl, fd, 0x541cul, &sub));
    say("TIOCLINUX high", syscall(SYS_ioctl, fd, 0x80000000541cul, &sub));
}

/* key NAME: a key of that name in the session keyring; key-add NAME puts it there, in a new session keyring */
static void key(const char *name) { say("key", syscall(SYS_keyctl, 10L, -3L, "user", name, 0L)); }

static void key_run(const char *name, char **argv) {
    syscall(SYS_keyctl, 1L, NULL);
    say("key added", syscall(SYS_add_key, "user", name, "secret", 6L, -3L));
    fflush(stdout);
    execvp(argv[0], argv);
    _exit(127);
}

/* exes: each visible process's program: device and inode, and whether it can be opened for writing */
static void exes(void) {
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && (e = readdir(proc));) {
        char path[64], target[256] = "";
        struct stat s;
        if (e->d_name[0] < '1' || e->d_name[0] > '9')
            continue;
        snprintf(path, sizeof path, "/proc/%.20s/exe", e->d_name);
        if (readlink(path, target, sizeof target - 1) < 0 || stat(path, &s) < 0) {
            printf("exe %s: %s\n", e->d_name, strerrorname_np(errno));
            continue;
        }
        int fd = open(path, O_WRONLY);
        printf("exe %s: %lu:%lu %s %s\n", e->d_name, (unsigned long)s.st_dev, (unsigned long)s.st_ino, word(fd), target);
        int later = open(path, O_PATH); /* as runc's exploit did: open for writing once the program has ended */
        snprintf(path, sizeof path, "/proc/self/fd/%d", later);
        char byte = 0;
        int again = open(path, O_RDWR);
        if (again >= 0)
            say("exe written", pwrite(again, &byte, 1, 1 << 20));
    }
}

/* open PATH...: for reading and for writing; nothing is written */
static void open_each(char **paths) {
    for (; *paths; paths++) {
        printf("read %s: ", *paths);
        printf("%s\n", word(open(*paths, O_RDONLY | O_NONBLOCK)));
        printf("write %s: ", *paths);
        printf("%s\n", word(open(*paths, O_WRONLY | O_NONBLOCK)));
    }
}

/* outsider PID: everything one process can do to another */
static void outsider(pid_t pid) {
    char byte, path[64];
    struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
    say("kill", kill(pid, 0));
    say("ptrace", ptrace(PTRACE_SEIZE, pid, 0, 0));
    /* EFAULT says that only the address is wrong */
    long n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    printf("vm_read: %s\n", n >= 0 || errno == EFAULT ? "ok" : strerrorname_np(errno));
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    say("pidfd", pidfd);
    say("getfd", syscall(SYS_pidfd_getfd, pidfd, 0, 0));
    for (const char *const *name = (const char *const[]){"mem", "environ", "fd/0", "root/", NULL}; *name; name++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, *name);
        printf("%s: %s\n", *name, word(open(path, O_RDONLY)));
    }
}

/* handle PATH: open_by_handle_at, by which CAP_DAC_READ_SEARCH reads any file of a file system ("Shocker") */
static void handle(const char *path) {
    union {
        struct file_handle handle;
        char space[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } h = {.handle.handle_bytes = MAX_HANDLE_SZ};
    int mount_id;
    say("name_to_handle", name_to_handle_at(AT_FDCWD, path, &h.handle, &mount_id, 0));
    say("open_by_handle", open_by_handle_at(open(path, O_RDONLY), &h.handle, O_RDONLY));
}

static void abstract(const char *name) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path + 1, name, sizeof a.sun_path - 2);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    say("abstract", connect(s, (struct sockaddr *)&a, (socklen_t)(sizeof a.sun_family + 1 + strlen(name))));
}

static void ipc(key_t shm, const char *queue) {
    say("shm", shmget(shm, 0, 0));
    say("mqueue", mq_open(queue, O_RDONLY));
}

/* call NAME NUMBER [ARG...] */
static void call(char **a) {
    unsigned long v[6] = {0};
    for (int i = 0; i < 6 && a[2 + i]; i++)
        v[i] = number(a[2 + i]);
    printf("%s: %s\n", a[0], word(syscall((long)number(a[1]), v[0], v[1], v[2], v[3], v[4], v[5])));
}

/* call32 NAME NUMBER [ARG ARG]: by int 0x80, the i386 entry */
static void call32(char **a) {
#ifdef __x86_64__
    long result;
    asm volatile("int $0x80"
                 : "=a"(result)
                 : "a"(number(a[1])), "b"(a[2] ? number(a[2]) : 0ul), "c"(a[2] && a[3] ? number(a[3]) : 0ul), "d"(0ul),
                   "S"(0ul), "D"(0ul)
                 : "memory", "r8", "r9", "r10", "r11");
    errno = (int)-result;
    printf("%s: %s\n", a[0], result < 0 && result > -4096 ? strerrorname_np(errno) : "ok");
#else
    printf("%s: ENOSYS\n", a[0]);
#endif
}

static void make_node(const char *path, const char *kind, unsigned major_number, unsigned minor_number) {
    say("mknod", mknod(path, (*kind == 'b' ? S_IFBLK : S_IFCHR) | 0666, makedev(major_number, minor_number)));
}

/* nested PATH...: in a user and mount namespace below: take a mount off, make it writable, cover it, mount anew */
static void nested(char **paths) {
    int result = unshare(CLONE_NEWUSER | CLONE_NEWNS);
    say("userns", result);
    if (result < 0)
        return;
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    for (; *paths; paths++) {
        char copy[] = "/tmp";
        printf("umount %s: ", *paths);
        printf("%s\n", word(umount2(*paths, MNT_DETACH)));
        printf("remount %s: ", *paths);
        printf("%s\n", word(mount(NULL, *paths, NULL, MS_REMOUNT | MS_BIND, NULL)));
        printf("copy %s: ", *paths);
        printf("%s\n", word(mount(*paths, copy, NULL, MS_BIND, NULL)));
    }
    say("copy /proc", mount("/proc", "/tmp", NULL, MS_BIND, NULL));
    unshare(CLONE_NEWPID);
    pid_t child = fork();
    if (child == 0) {
        say("new proc", mount("proc", "/tmp", "proc", 0, NULL));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    unshare(CLONE_NEWNET);
    say("new sysfs", mount("sysfs", "/tmp", "sysfs", 0, NULL));
    unshare(CLONE_NEWCGROUP);
    say("new cgroup", mount("c", "/tmp", "cgroup", 0, "memory"));
    say("release_agent", open("/tmp/release_agent", O_WRONLY));
}

/* mounts PATH: what a program with its own capabilities can do to a mount */
static void mounts(const char *path) {
    say("remount", mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL));
    say("bind over", mount("/tmp", path, NULL, MS_BIND, NULL));
    say("umount", umount2(path, MNT_DETACH));
    say("move", mount(path, "/tmp", NULL, MS_MOVE, NULL));
    say("new tmpfs", mount("t", path, "tmpfs", 0, NULL));
    say("open_tree", syscall(SYS_open_tree, AT_FDCWD, path, 1));
    say("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    say("pivot_root", syscall(SYS_pivot_root, ".", "."));
    say("chroot", chroot(path));
}

/* ids: real, effective and saved; groups; sets of this process and of process 1 */
static void status_of(const char *who) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%s/status", who);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "Cap", 3) || !strncmp(line, "Seccomp:", 8) || !strncmp(line, "NoNewPrivs", 10))
            printf("%s %s", who, line);
    if (f)
        fclose(f);
}

static void ids(void) {
    uid_t r, e, s;
    gid_t groups[256];
    getresuid(&r, &e, &s);
    int n = getgroups(256, groups);
    printf("uids: %u %u %u\ngroups:", r, e, s);
    for (int i = 0; i < n; i++)
        printf(" %u", groups[i]);
    mode_t mask = umask(0);
    printf("\numask: %04o\n", mask);
}

/* stand: be there and say so, for others to try things on */
static void stand(void) {
    printf("pid: %d\n", getpid());
    fflush(stdout);
    sleep(30);
}

static void attempt(char **a) {
    const char *what = a[0];
    static char *none[] = {NULL};
    char **rest = a[0] && a[1] ? a + 1 : none;
    if (!strcmp(what, "fds")) fds();
    else if (!strcmp(what, "cwd")) cwd(a[1]);
    else if (!strcmp(what, "session")) session();
    else if (!strcmp(what, "type")) type(atoi(a[1]));
    else if (!strcmp(what, "key")) key(a[1]);
    else if (!strcmp(what, "key-run")) key_run(a[1], a + 2);
    else if (!strcmp(what, "exes")) exes();
    else if (!strcmp(what, "open")) open_each(rest);
    else if (!strcmp(what, "outsider")) outsider(atoi(a[1]));
    else if (!strcmp(what, "handle")) handle(a[1]);
    else if (!strcmp(what, "abstract")) abstract(a[1]);
    else if (!strcmp(what, "ipc")) ipc((key_t)number(a[1]), a[2]);
    else if (!strcmp(what, "call")) call(rest);
    else if (!strcmp(what, "call32")) call32(rest);
    else if (!strcmp(what, "mknod")) make_node(a[1], a[2], (unsigned)number(a[3]), (unsigned)number(a[4]));
    else if (!strcmp(what, "nested")) nested(rest);
    else if (!strcmp(what, "mounts")) mounts(a[1]);
    else if (!strcmp(what, "ids")) ids();
    else if (!strcmp(what, "status")) status_of(a[1]);
    else if (!strcmp(what, "stand")) stand();
    else printf("%s: no such attempt\n", what);
    fflush(stdout);
}

int main(int argc, char **argv) {
    char **start = argv + 1;
    if (argc > 1 && !strcmp(argv[1], "key-run")) { /* its command may have a "--" of its own */
        attempt(start);
        return 1;
    }
    for (char **a = argv + 1; a <= argv + argc; a++)
        if (!*a || !strcmp(*a, "--")) {
            int last = !*a;
            *a = NULL;
            if (*start)
                attempt(start);
            start = a + 1;
            if (last)
                break;
        }
    return 0;
}
