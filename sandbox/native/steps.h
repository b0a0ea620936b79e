// SPDX-License-Identifier: Apache-2.0
/*
 * The steps that the new process takes, by the file they are in, and what one file uses of another. Each reads its fields
 * from the plan at the cursor and fails (plan.h) where the kernel says no.
 */
#ifndef STOCKADE_STEPS_H
#define STOCKADE_STEPS_H

#include <stdint.h>
#include <sys/types.h>

/* paths.c: what is opened and made inside a root */
void step_open(void);
void step_open_inside(void);
void step_ensure(void);
void step_ensure_like(void);
void step_ensure_real(void);
void step_refuse_link(void);
void step_make_node(void);
void step_make_link(void);
void step_write_file(void);

int open_inside(int root, const char *path, uint64_t flags, uint64_t mode);

/* A name in a directory, which is no link, as O_PATH. */
int open_entry(int directory, const char *name);

/* Make `path` under `root` where it is missing, with the directories before it; give it as O_PATH. */
int ensure(int root, const char *path, int directory, mode_t mode);

/* mounts.c: trees of mounts, covers, the new root */
void step_clone_tree(void);
void step_attach(void);
void step_set_attributes(void);
void step_read_only_below(void);
void step_relax(void);
void step_proc_root(void);
void step_mask(void);
void step_read_only(void);
void step_pivot(void);
void step_move_root(void);
void step_chroot(void);

void attach(int tree, int target);

/* filesystem.c: new file systems */
void step_filesystem(void);
void step_reconfigure(void);

/* copyup.c: a new file system that begins with what it covers */
void step_like_covered(void);

/* devices.c */
void step_bind_node(void);
void step_device(void);
void step_link(void);

/* identity.c: ids, capabilities, limits, the filter, the settings of namespaces */
void step_set_ids(void);
void step_keyring(void);
void step_rlimit(void);
void step_bounding(void);
void step_capabilities(void);
void step_ambient(void);
void step_seccomp(void);
void step_loopback(void);

int load_filter(unsigned flags, const char *program, uint64_t n);

/* attributes.c: what goes through procfs, and what else execve(2) keeps */
void step_host_proc(void);
void step_sysctl(void);
void step_time_offsets(void);
void step_label(void);
void step_personality(void);
void step_memory_policy(void);

/* hooks.c */
void step_hook(void);

/* process.c: the hand-shake, descriptors and streams, the init, the program */
void step_join(void);
void step_wait_maps(void);
void step_wait_supervisor(void);
void step_close_others(void);
void step_terminal(void);
void step_stdio(void);
void step_own_stdio(void);
void step_working_directory(void);
void step_init(void);
void step_execute(void);
void step_hold(void);
void step_find(void);
void step_wait_start(void);
void step_preserve(void);

/* Close what leads back to the host, after the root has changed. */
void leave_host(void);

/* Put the container's own null device in place of the host's. */
void own_null(int fd);

/* plan.c: the supervisor's word, which may bring the rest of the plan */
void step_ready(void);

#endif
