// SPDX-License-Identifier: Apache-2.0
/* Control groups whose processes must end with the first one of the container (step GUARD). */
#ifndef STOCKADE_GROUPS_H
#define STOCKADE_GROUPS_H

enum { GUARDS = 2 }; /* of each container: its group, and the freezer's of v1 */

/* Kill all in these groups, directories or -1 for none, and close them. */
void kill_groups(int groups[GUARDS]);

#endif
