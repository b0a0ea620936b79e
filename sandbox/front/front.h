// SPDX-License-Identifier: Apache-2.0
/*
 * The command stockade-runtime as it is started: what it can do in the usual case without Python, it does; everything else,
 * and whatever looks in any way unusual, is left to the Python command with the same words.
 */
#ifndef STOCKADE_FRONT_H
#define STOCKADE_FRONT_H

#include <stddef.h>
#include <sys/types.h>

/* A piece of the state's text. */
struct slice {
    const char *text;
    size_t length;
};

enum { MAX_GROUPS = 64, MAX_STATE = 1 << 18 };

/* What sandbox/runtime/state.py has written down. */
struct record {
    pid_t pid;
    unsigned long long start; /* clock ticks since boot: the pid is of this process and no later one */
    int plain;                /* no hooks, no listener, no unit of systemd: nothing that Python would have to do */
    struct slice version, bundle, rootfs, created, annotations; /* as they stand, JSON */
    int groups;
    struct slice names[MAX_GROUPS], paths[MAX_GROUPS]; /* controllers (v2: none) and directory */
};

/* What the words ask for. */
struct request {
    const char *root, *log, *command, *identity, *signal;
    int force;
};

/* Read state.json into static memory. False where it is not as we write it. */
int read_record(int directory, struct record *r);

/* Each gives the exit code, or -1 where Python has to take over; nothing has been done then that it could not go on from.
 * `start` leaves the socket on which the process has answered in `connection` if that is for Python to tell of. */
int do_start(int directory, const struct record *r, int *connection);
int do_state(int directory, const struct record *r, const char *identity);
int do_kill(const struct record *r, const char *signal);
int do_delete(int root, int directory, const struct record *r, const struct request *q);

/* Replace this process by the Python command, which finds the answer of a process that failed to start on `connection`. */
_Noreturn void become_python(char **argv, int connection);

/* Wait in another process for what putting a process into control groups would have to wait for. */
void warm_groups(void);

#endif
