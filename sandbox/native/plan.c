// SPDX-License-Identifier: Apache-2.0
/* The plan: its bytes, the slots, the packets that bring it, the answers, and the walk of the new process. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan.h"
#include "steps.h"

struct plan plan = {.sync_fd = -1, .go_fd = -1};

/* ---- answers ---------------------------------------------------------------------------------------------------- */

int answer(int socket, struct answer a, int descriptor) {
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

/* The new process ends here when a step fails. A filter may already forbid the write: the exit code stays 125 then.
 * The launcher itself comes here for a plan whose bytes make no sense: it ends, and what it guards with it. */
_Noreturn void failed_with(int error) {
    answer(plan.sync_fd, (struct answer){FAILED, plan.step_number, error, 0}, -1);
    if (!plan.in_child)
        kill_all();
    _exit(125);
}

_Noreturn void failed(void) { failed_with(errno); }

int check(long result) {
    if (result < 0)
        failed();
    return (int)result;
}

/* ---- the plan's bytes ------------------------------------------------------------------------------------------- */

/* Numbers are 8 bytes; a text is its length, its bytes and zeros to the next multiple of 8, at least one. */
uint64_t number(void) {
    uint64_t n;
    if (plan.limit - plan.cursor < 8)
        failed_with(EBADMSG);
    memcpy(&n, plan.cursor, 8);
    plan.cursor += 8;
    return n;
}

const char *bytes(uint64_t *length) {
    uint64_t n = number(), padded = (n + 8) & ~7ull;
    if (n > INT32_MAX || padded > (uint64_t)(plan.limit - plan.cursor) || plan.cursor[n] != 0)
        failed_with(EBADMSG);
    const char *text = (const char *)plan.cursor;
    plan.cursor += padded;
    *length = n;
    return text;
}

const char *text(void) {
    uint64_t n;
    const char *t = bytes(&n);
    if (strlen(t) != n)
        failed_with(EBADMSG);
    return t;
}

int slot_number(void) {
    uint64_t n = number();
    if (n >= SLOTS)
        failed_with(EBADMSG);
    return (int)n;
}

int descriptor(void) {
    int fd = plan.slot[slot_number()];
    if (fd < 0)
        failed_with(EBADF);
    return fd;
}

void put(int n, int fd) {
    if (plan.slot[n] >= 0)
        close(plan.slot[n]);
    plan.slot[n] = fd;
    if (n >= plan.slots_used)
        plan.slots_used = n + 1;
}

/* ---- packets ---------------------------------------------------------------------------------------------------- */

/* Receive one packet with its descriptors. */
ssize_t receive(int socket, void *packet, size_t size, int *received, int *count) {
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
void *map_steps(int fd, uint32_t length) {
    struct stat s;
    if (fstat(fd, &s) < 0 || !length || (uint64_t)s.st_size < length) /* a page that isn't there is SIGBUS */
        return errno = EBADMSG, MAP_FAILED;
    return mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
}

/* ---- the walk --------------------------------------------------------------------------------------------------- */

/* Stand ready until the supervisor has compared. Its word may bring the last steps and their descriptors: a process can be
 * made ready before it is known what it will execute. */
void step_ready(void) {
    static uint8_t packet[MAX_PACKET];
    struct go go;
    int received[256], count, first = slot_number();
    check(answer(plan.sync_fd, (struct answer){PREPARED, plan.step_number, 0, 0}, -1));
    ssize_t n = receive(plan.sync_fd, packet, sizeof packet, received, &count);
    if (n < (ssize_t)sizeof go)
        _exit(125); /* the supervisor is gone, or found a difference and says so itself */
    memcpy(&go, packet, sizeof go);
    if (go.magic != MAGIC || (uint64_t)count != (uint64_t)go.descriptors + (go.in_memfd ? 1 : 0) || first + count > SLOTS)
        failed_with(EBADMSG);
    for (uint32_t i = 0; i < go.descriptors; i++)
        put(first + (int)i, received[i]);
    plan.tail = packet + sizeof go;
    if (go.in_memfd) {
        void *mapped = map_steps(received[count - 1], go.length);
        if (mapped == MAP_FAILED)
            failed();
        plan.tail = mapped;
        close(received[count - 1]);
    } else if ((size_t)n != sizeof go + go.length)
        failed_with(EBADMSG);
    plan.tail_length = go.length;
}

static void take(enum op op) {
    switch (op) {
    case OP_WAIT_MAPS: return step_wait_maps();
    case OP_WAIT_SUPERVISOR: return step_wait_supervisor();
    case OP_CLOSE_OTHERS: return step_close_others();
    case OP_DEATH_SIGNAL: check(prctl(PR_SET_PDEATHSIG, number(), 0, 0, 0)); return;
    case OP_SET_IDS: return step_set_ids();
    case OP_UNSHARE: check(syscall(SYS_unshare, number())); return;
    case OP_JOIN: return step_join();
    case OP_PROPAGATION: { const char *path = text(); check(syscall(SYS_mount, NULL, path, NULL, number(), NULL)); return; }
    case OP_OPEN: return step_open();
    case OP_CLONE_TREE: return step_clone_tree();
    case OP_FILESYSTEM: return step_filesystem();
    case OP_ATTACH: return step_attach();
    case OP_SET_ATTRIBUTES: return step_set_attributes();
    case OP_READ_ONLY_BELOW: return step_read_only_below();
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
    case OP_HOLD: return step_hold();
    case OP_FIND: return step_find();
    case OP_WAIT_START: return step_wait_start();
    case OP_PRESERVE: return step_preserve();
    case OP_HOST_PROC: return step_host_proc();
    case OP_TIME_OFFSETS: return step_time_offsets();
    case OP_LABEL: return step_label();
    case OP_PERSONALITY: return step_personality();
    case OP_MEMORY_POLICY: return step_memory_policy();
    case OP_HOOK: return step_hook();
    case OP_CLOSE: put(slot_number(), -1); return;
    case OP_RELAX: return step_relax();
    case OP_RECONFIGURE: return step_reconfigure();
    case OP_PROC_ROOT: return step_proc_root();
    case OP_OPEN_INSIDE: return step_open_inside();
    case OP_LIKE_COVERED: return step_like_covered();
    case OP_DEVICE: return step_device();
    case OP_LINK: return step_link();
    case OP_MOVE_ROOT: return step_move_root();
    case OP_CHROOT: return step_chroot();
    default: failed_with(EBADMSG); /* CLONE, PLACE, WRITE_MAPS and the like are the launcher's own */
    }
}

/* The next step of the list at the cursor; false at its end. */
int next_step(uint32_t *op, const uint8_t **end) {
    if (plan.limit - plan.cursor < 8)
        return 0;
    uint32_t size;
    memcpy(op, plan.cursor, 4);
    memcpy(&size, plan.cursor + 4, 4);
    plan.cursor += 8;
    if (size > (uint64_t)(plan.limit - plan.cursor) || size % 8)
        return 0;
    *end = plan.cursor + size;
    return 1;
}

_Noreturn void walk(const uint8_t *from, const uint8_t *to) {
    uint32_t op;
    const uint8_t *end;
    for (plan.cursor = from, plan.limit = to; plan.cursor; plan.cursor = plan.tail, plan.limit = plan.tail + plan.tail_length, plan.tail = NULL)
        while (next_step(&op, &end)) {
            const uint8_t *all = plan.limit;
            plan.limit = end;
            take((enum op)op);
            if (plan.cursor != end)
                failed_with(EBADMSG);
            plan.limit = all;
            plan.step_number++;
        }
    failed_with(ENOEXEC); /* a plan that does not execute anything */
}
