// SPDX-License-Identifier: Apache-2.0
/*
 * What the launcher and the supervisor say to each other, and the plan that is being walked. sandbox/plan.py and
 * sandbox/steps.py write what is read here.
 */
#ifndef STOCKADE_PLAN_H
#define STOCKADE_PLAN_H

#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

/* sandbox/steps.py has a class of the same name for each; a test compares the two lists. */
#define OPS(X)                                                                                                         \
    X(CLONE) X(PLACE) X(WRITE_MAPS) X(WAIT_MAPS) X(WAIT_SUPERVISOR) X(CLOSE_OTHERS) X(DEATH_SIGNAL) X(SET_IDS)         \
    X(UNSHARE) X(JOIN) X(PROPAGATION) X(OPEN) X(CLONE_TREE) X(FILESYSTEM) X(ATTACH) X(SET_ATTRIBUTES)       \
    X(READ_ONLY_BELOW) X(ENSURE) X(ENSURE_LIKE) X(ENSURE_REAL) X(REFUSE_LINK) X(MAKE_NODE) X(BIND_NODE) X(MAKE_LINK)      \
    X(MASK) X(READ_ONLY) X(WRITE_FILE) X(PIVOT) X(SESSION) X(KEYRING) X(RLIMIT) X(HOSTNAME) X(DOMAINNAME) X(SYSCTL)    \
    X(OOM_SCORE) X(UMASK) X(BOUNDING) X(SECUREBITS) X(CAPABILITIES) X(AMBIENT) X(NO_NEW_PRIVS) X(DUMPABLE)             \
    X(TERMINAL) X(STDIO) X(OWN_STDIO) X(SECCOMP) X(WORKING_DIRECTORY) X(READY) X(INIT) X(EXECUTE) X(LOOPBACK)          \
    X(IDMAP) X(GUARD) X(JOIN_FIRST) X(HOLD) X(FIND) X(WAIT_START) X(PRESERVE) X(RLIMIT_ROOM)            \
    X(SCHEDULER) X(IO_PRIORITY) X(AFFINITY) X(HOST_PROC) X(TIME_OFFSETS) X(LABEL) X(PERSONALITY) X(MEMORY_POLICY)      \
    X(HOOK) X(CLOSE) X(RELAX) X(RECONFIGURE) X(PROC_ROOT) X(OPEN_INSIDE) X(LIKE_COVERED) X(DEVICE) X(LINK) X(MOVE_ROOT)       \
    X(CHROOT) X(PIDS_PROC)

enum op {
#define X(name) OP_##name,
    OPS(X)
#undef X
    OP_COUNT
};

enum message { CLONED = 1, PREPARED, FAILED, TERMINAL_MASTER, STREAM, HELD, HOOK_SAID, LISTENER };

/* In place of an errno: how a hook ended, as waitpid(2) says it. */
enum { HOOK_STATUS = 0x10000 };

enum { SLOTS = 2048, MAX_PACKET = 196608 };

#define MAGIC 0x4b435453u   /* "STCK" */
#define RELEASE 0x454c4552u /* "RELE": a packet of these four bytes alone */

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

/* The plan that is being walked: all that the steps share. A new process has the launcher's as it was at the clone. */
struct plan {
    const uint8_t *cursor, *limit; /* what is left of the step, or between two steps of the list */
    const uint8_t *tail;           /* the steps that came with the supervisor's word */
    uint32_t tail_length;
    uint32_t step_number;
    int sync_fd;  /* to the supervisor's end of this launch */
    int go_fd;    /* the launcher's word that the id maps are written */
    int in_child; /* this is a new process, not the launcher */
    int pivoted;
    uint64_t soft_files; /* the caller's limit of open files, for the program; the launcher takes all that it may */
    int slots_used;
    int slot[SLOTS]; /* last: what would be written past it is past the whole, where sanitizers see it */
};

extern struct plan plan;

/* Send an answer, with a descriptor unless that is -1. 0, or -1 with errno. */
int answer(int socket, struct answer a, int descriptor);

/* End with an answer that says FAILED, of the step that is being taken. */
_Noreturn void failed_with(int error);
_Noreturn void failed(void); /* with errno */
int check(long result);      /* gives what is not negative, else fails with errno */

/* The step's next field, of each kind. What does not fit into the step, or is not of the kind, is a failure. */
uint64_t number(void);
const char *bytes(uint64_t *length);
const char *text(void);
int slot_number(void);
int descriptor(void); /* what is in the slot */

/* Put a descriptor, or -1, into a slot; what was there is closed. */
void put(int n, int fd);

/* Receive one packet with its descriptors, up to 253. */
ssize_t receive(int socket, void *packet, size_t size, int *received, int *count);

/* The steps in a memfd, where they are longer than a packet can be. MAP_FAILED with errno where they are not there. */
void *map_steps(int fd, uint32_t length);

/* The next step of the list at the cursor; false at its end. */
int next_step(uint32_t *op, const uint8_t **end);

/* Take the steps of the new process. The last one executes the program. */
_Noreturn void walk(const uint8_t *from, const uint8_t *to);

/* launcher.c: nothing that the launcher guards outlives it. */
void kill_all(void);

/* launcher.c: /proc/PID/NAME, of this process where `pid` is 0; names are ours and short */
void proc_path(char path[64], pid_t pid, const char *name);
int write_proc(pid_t pid, const char *name, const char *value); /* -1 with errno */

/* idmap.c: the step IDMAP of the first list. -1 with errno. */
int idmap(pid_t pid);

/* attributes.c: a step of the first list about the new process, or about the launcher itself before it has cloned (0). -1 with errno. */
int outside_step(uint32_t op, pid_t pid);

#endif
