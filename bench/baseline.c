// SPDX-License-Identifier: Apache-2.0
/*
 * What a launch costs at least when it is written plainly in C: the same kernel work as `Sandbox.run(["/bin/true"])`, with
 * fork, mount(2) and nothing clever. Nothing is kept ready, nothing is checked and nothing is read back; a step that fails
 * ends the program.
 *
 * usage: baseline DESCRIPTION FILTER PROGRAM. DESCRIPTION is written by bench/description.py from the same Spec and plan
 * that Stockade uses: one step a line, fields apart by tabs. FILTER is the same program for seccomp(2), as bytes. Each
 * number that is read from stdin asks for so many launches; each launch answers with a line, its nanoseconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STEPS = 256, MAX_FIELDS = 6, MAX_WORDS = 64 };

struct step {
    char *field[MAX_FIELDS];
    int fields;
};

static struct step steps[MAX_STEPS];
static int step_count;
static char *maps[2] = {"", ""};
static const char *root; /* a directory to mount the new root on */
static char *environment[MAX_WORDS];
static struct sock_fprog filter;

static void die(const char *what) {
    fprintf(stderr, "baseline: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static void check(long result, const char *what) {
    if (result < 0)
        die(what);
}

/* ---- the description ----------------------------------------------------------------------------------------------- */

static char *slurp(const char *path, size_t *length) {
    FILE *file = fopen(path, "re");
    if (!file)
        die(path);
    char *data = malloc(1 << 20);
    *length = fread(data, 1, (1 << 20) - 1, file);
    data[*length] = 0;
    fclose(file);
    return data;
}

static void unescape(char *text) { /* a newline in a file's content is written as \n */
    char *to = text;
    for (; *text; text++)
        *to++ = *text == '\\' && text[1] == 'n' ? (text++, '\n') : *text;
    *to = 0;
}

static void read_description(const char *path) {
    size_t length;
    char *data = slurp(path, &length), *save, *line;
    int variables = 0;
    for (line = strtok_r(data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct step *s = &steps[step_count++];
        if (step_count == MAX_STEPS)
            die("too many steps");
        while (line && s->fields < MAX_FIELDS) {
            s->field[s->fields] = strsep(&line, "\t");
            unescape(s->field[s->fields++]);
        }
        const char *name = s->field[0];
        if (!strcmp(name, "root"))
            root = s->field[1];
        else if (!strcmp(name, "uidmap"))
            maps[0] = s->field[1];
        else if (!strcmp(name, "gidmap"))
            maps[1] = s->field[1];
        else if (!strcmp(name, "env") && variables < MAX_WORDS - 1)
            environment[variables++] = s->field[1];
        else
            continue;
        *s = (struct step){0};
        step_count--;
    }
}

/* ---- the child ------------------------------------------------------------------------------------------------------- */

/* Give the path in the new root, which is mounted on `root` until pivot_root. */
static const char *inside(const char *path) {
    static char buffer[4096];
    snprintf(buffer, sizeof buffer, "%s/%s", root, *path == '/' ? path + 1 : path);
    return buffer;
}

static void make(const char *path, int directory) {
    char part[4096];
    snprintf(part, sizeof part, "%s", path);
    for (char *at = part + strlen(root) + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            if (mkdir(part, 0755) < 0 && errno != EEXIST)
                die(part);
            *at = '/';
        }
    if ((directory ? mkdir(part, 0755) : mknod(part, S_IFREG | 0644, 0)) < 0 && errno != EEXIST)
        die(part);
}

static void bind_to(const char *source, const char *path, unsigned long flags, int recursive) {
    unsigned long rec = recursive ? MS_REC : 0;
    check(mount(source, path, NULL, MS_BIND | rec, NULL), path);
    if (flags)
        check(mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | flags, NULL), path);
    check(mount(NULL, path, NULL, MS_PRIVATE | rec, NULL), path);
}

static int is_directory(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static void mask(const char *path) {
    struct stat s;
    if (stat(path, &s) < 0)
        return;
    unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NOEXEC;
    if (S_ISDIR(s.st_mode))
        check(mount("tmpfs", path, "tmpfs", flags | MS_NODEV, "nr_inodes=1,mode=0555"), path);
    else
        bind_to("/dev/null", path, flags, 0);
}

static void write_file(const char *path, const char *data) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    check(fd, path);
    check(write(fd, data, strlen(data)), path);
    close(fd);
}

static void loopback(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    check(s, "socket");
    check(ioctl(s, SIOCSIFFLAGS, &request), "lo");
    close(s);
}

static void pivot(void) {
    check(chdir(root), root);
    check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(umount2(".", MNT_DETACH), "umount2");
    check(chdir("/"), "/");
}

static void bounding(uint64_t keep) {
    for (int c = 0; c < 64; c++)
        if (!(keep >> c & 1) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0) {
            if (errno != EINVAL) /* past this kernel's last */
                die("PR_CAPBSET_DROP");
            break;
        }
}

static void capabilities(uint64_t set) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    for (int i = 0; i < 2; i++) {
        uint32_t half = (uint32_t)(set >> 32 * i);
        data[i] = (struct __user_cap_data_struct){.effective = half, .permitted = half, .inheritable = 0};
    }
    check(syscall(SYS_capset, &header, data), "capset");
}

static void become_root(void) {
    check(syscall(SYS_setgroups, 0L, NULL), "setgroups");
    check(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
    check(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
}

static void take(const struct step *s) {
    char *const *f = s->field;
    const char *name = f[0];
    if (!strcmp(name, "tmpfs-root")) {
        check(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL), "/");
        check(mount("tmpfs", root, "tmpfs", MS_NODEV, f[1]), root);
    } else if (!strcmp(name, "dir")) {
        check(mkdir(inside(f[1]), 0755), f[1]);
        check(chmod(inside(f[1]), (mode_t)strtoul(f[2], NULL, 8)), f[1]);
    } else if (!strcmp(name, "link"))
        check(symlink(f[2], inside(f[1])), f[1]);
    else if (!strcmp(name, "file"))
        write_file(inside(f[1]), f[2]);
    else if (!strcmp(name, "bind")) {
        const char *path = inside(f[2]);
        make(path, is_directory(f[1]));
        bind_to(f[1], path, MS_RDONLY | MS_NOSUID | MS_NODEV, 1);
    } else if (!strcmp(name, "mount")) {
        const char *path = inside(f[2]);
        make(path, 1);
        check(mount(f[1], path, f[1], strtoul(f[3], NULL, 10), f[4]), path);
    } else if (!strcmp(name, "node")) {
        const char *path = inside(f[2]);
        make(path, 0);
        bind_to(f[1], path, 0, 0);
    } else if (!strcmp(name, "read-only")) {
        const char *path = inside(f[1]);
        if (access(path, F_OK) == 0)
            bind_to(path, path, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 1);
    } else if (!strcmp(name, "mask"))
        mask(inside(f[1]));
    else if (!strcmp(name, "pivot"))
        pivot();
    else if (!strcmp(name, "hostname"))
        check(sethostname(f[1], strlen(f[1])), "sethostname");
    else if (!strcmp(name, "capabilities")) {
        uint64_t set = strtoull(f[1], NULL, 10);
        bounding(set);
        check(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "PR_SET_KEEPCAPS");
        become_root();
        capabilities(set);
        check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "PR_CAP_AMBIENT");
        check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
    } else
        die(name);
}

static void child(int go, const int output[2], char *const argv[]) {
    char byte;
    if (read(go, &byte, 1) != 1)
        _exit(125);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    check(dup2(null, 0), "stdin");
    check(dup2(output[0], 1), "stdout");
    check(dup2(output[1], 2), "stderr");
    check(syscall(SYS_close_range, 3u, ~0u, 0), "close_range");
    check(syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL), "keyctl");
    check(setsid(), "setsid");
    umask(0);
    become_root();
    loopback();
    for (int i = 0; i < step_count; i++)
        take(&steps[i]);
    umask(022);
    check(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG");
    check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), "seccomp");
    execve(argv[0], argv, environment);
    die(argv[0]);
}

/* ---- the parent ------------------------------------------------------------------------------------------------------ */

static void write_map(pid_t pid, const char *name, const char *map) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd, path);
    check(write(fd, map, strlen(map)), path);
    close(fd);
}

static void read_all(const int output[2]) {
    struct pollfd polled[2] = {{.fd = output[0], .events = POLLIN}, {.fd = output[1], .events = POLLIN}};
    char buffer[65536];
    for (int open_ends = 2; open_ends;) {
        check(poll(polled, 2, -1), "poll");
        for (int i = 0; i < 2; i++)
            if (polled[i].revents && read(polled[i].fd, buffer, sizeof buffer) == 0) {
                polled[i].fd = -1;
                open_ends--;
            }
    }
}

static void launch(char *const argv[]) {
    int go[2], out[2], err[2], status;
    check(pipe2(go, O_CLOEXEC) | pipe2(out, O_CLOEXEC) | pipe2(err, O_CLOEXEC), "pipe2");
    unsigned long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                          CLONE_NEWCGROUP | SIGCHLD;
    pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, 0L);
    check(pid, "clone");
    if (pid == 0) {
        close(go[1]);
        child(go[0], (int[]){out[1], err[1]}, argv);
    }
    close(go[0]);
    close(out[1]);
    close(err[1]);
    write_map(pid, "uid_map", maps[0]);
    write_map(pid, "gid_map", maps[1]);
    check(write(go[1], "g", 1), "go");
    close(go[1]);
    read_all((int[]){out[0], err[0]});
    check(waitpid(pid, &status, 0), "waitpid");
    close(out[0]);
    close(err[0]);
    if (status != 0) {
        fprintf(stderr, "baseline: the program ended with status %#x\n", (unsigned)status);
        exit(1);
    }
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(int argc, char *argv[]) {
    if (argc < 4)
        return 2;
    read_description(argv[1]);
    size_t length;
    char *program = slurp(argv[2], &length);
    filter = (struct sock_fprog){.len = (unsigned short)(length / 8), .filter = (struct sock_filter *)(void *)program};
    int count;
    while (scanf("%d", &count) == 1) {
        while (count-- > 0) {
            long long before = now();
            launch(argv + 3);
            printf("%lld\n", now() - before);
        }
        fflush(stdout);
    }
    return 0;
}
