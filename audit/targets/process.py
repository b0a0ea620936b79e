"""The collector of a running container: from /proc, from mountinfo, and from a probe that takes on its credentials.

Cheap facts come first and the probe runs beside them on another processor. Each fact says where it was read; what
can't be read becomes a `Gap` with the reason, and a process that vanishes ends the collection with
ProcessLookupError.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stockade.audit import facts, probe, seccomp_facts
from stockade.audit.facts import Fact, Gap, Target, Where
from stockade.audit.targets import controls, declared, descriptors, engines, identity, mounts, own, resources
from stockade.audit.targets.discovery import Group
from stockade.audit.targets.host import HostView
from stockade.audit.targets.shared import Cache, Options
from stockade.audit.targets.snapshot import inodes_of
from stockade.audit.targets.threads import SECCOMP_MODES, differing
from stockade.sandbox.linux import namespaces, process, procfs, ptrace, statx
from stockade.sandbox.linux.process import Status

_NEEDS_ROOT = "needs ptrace access to the process: run the audit as root or as the same user"


class Collector:
    """Collects one target: `begin`, `finish`, and `close` whatever happened. Between the two the probe runs."""

    def __init__(self, group: Group, host: HostView, cache: Cache, options: Options, prober: probe.Prober) -> None:
        self.group = group
        self.pid = group.first.pid
        self.host = host
        self.cache = cache
        self.options = options
        self.prober = prober
        self._running: probe.Probe | None = None
        # pid and its sockets as (descriptor, inode), of each process of the container
        self._sockets_of: list[tuple[int, tuple[tuple[int, int], ...]]] = []
        self.facts: list[Fact] = []
        self.gaps: list[Gap] = []
        self.complete: set[type[Fact]] = set()

    def begin(self) -> bool:
        """Read what the probe needs, start it, give True. Raises ProcessLookupError when the first process has gone."""
        pid = self.pid
        self.status = process.status(pid)
        self.inodes = self._inodes()
        self.mountinfo = procfs.read_text(pid, "mountinfo")
        self.view = self.cache.view(self.mountinfo, f"/proc/{pid}/mountinfo")
        self.identifier = identity.Identifier(pid, self.status, self.host)
        self._start_probe(self.status, self.inodes, self.view, self.identifier)
        return True

    def finish(self) -> Target:
        """Read the rest, take the probe's answer, give the target. Raises as `begin` does."""
        status, inodes = self.status, self.inodes
        initial = inodes.get("user") == namespaces.INITIAL["user"]
        self.facts += self.identifier.facts(initial=initial, known=bool(inodes))
        self._sets(status)
        self._namespaces(inodes)
        self._mounts(self.view)
        self._seccomp(status)
        self._labels()
        self._resources()
        self._descriptors(inodes)
        self._finish_probe(inodes)
        self.facts.append(self.host.fact)
        self._runtime(status)
        self._declared()
        return self._target()

    def close(self) -> None:
        """Give up a probe that was not waited for."""
        if self._running is not None:
            self._running.close()

    def lives(self) -> bool:
        """Say whether the first process is there and no zombie."""
        try:
            return procfs.read(self.pid, "stat").rpartition(b")")[2].split()[0] not in b"ZX"
        except OSError:
            return False

    def _target(self) -> Target:
        group = self.group
        try:
            command = " ".join(process.cmdline(self.pid))
        except (PermissionError, ProcessLookupError):
            command = ""
        state = procfs.read(self.pid, "stat").rpartition(b")")[2].split()
        if state[0] in b"ZX" or state[19] != str(group.first.start).encode():
            raise ProcessLookupError(self.pid)
        self.complete -= {gap.kind for gap in self.gaps}
        return Target(
            id=group.id,
            name=group.name,
            kind=group.kind,
            # Kinds of one fact first: whoever looks for one of them need not pass hundreds of files and devices.
            facts=(*[fact for fact in self.facts if not fact.many], *[fact for fact in self.facts if fact.many]),
            gaps=tuple(self.gaps),
            complete=frozenset(self.complete),
            pids=tuple([entry.pid for entry in group.entries]),
            command=command,
            mode=group.state.mode if group.state else "",
        )

    def _gap(self, reason: str, *kinds: type[Fact], where: Where | None = None, applicable: bool = True) -> None:
        known = {gap.kind for gap in self.gaps}
        self.gaps += [Gap(kind, reason, where, applicable) for kind in kinds if kind not in known]

    def _try(self, read: Callable[[], Any], *kinds: type[Fact]) -> Any:
        """Read something; None and gaps for its kinds when it is refused."""
        try:
            return read()
        except ProcessLookupError:
            raise
        except PermissionError:
            self._gap(_NEEDS_ROOT, *kinds)
        except (OSError, ValueError) as error:
            self._gap(str(error), *kinds)
        return None

    def _inodes(self) -> dict[str, int]:
        kinds = (facts.Namespace, facts.UserNamespace)
        return self._try(lambda: inodes_of(self.pid, namespaces.KINDS), *kinds) or {}

    def _sets(self, status: Status) -> None:
        where = Where(f"/proc/{self.pid}/status")
        caps = status.caps
        self.facts.append(
            facts.CapabilitySets(
                where=where, bounding=caps.bounding, effective=caps.effective, inheritable=caps.inheritable,
                permitted=caps.permitted, ambient=caps.ambient, last=identity.last_cap(),
            )
        )  # fmt: skip
        if status.no_new_privs is None:
            self._gap("this kernel does not tell no_new_privs", facts.NoNewPrivs)
        else:
            self.facts.append(facts.NoNewPrivs(where=where, value=status.no_new_privs))
        if status.seccomp is None or status.seccomp >= len(SECCOMP_MODES):
            self._gap("this kernel does not tell the seccomp mode", facts.SeccompState)
        else:
            mode = SECCOMP_MODES[status.seccomp]
            self.facts.append(facts.SeccompState(where=where, mode=mode, filters=status.seccomp_filters))

    def _namespaces(self, inodes: dict[str, int]) -> None:
        for kind, inode in inodes.items():
            self.facts.append(
                facts.Namespace(
                    where=Where(f"/proc/{self.pid}/ns/{kind}"),
                    kind=kind,  # type: ignore[arg-type] # the keys are namespaces.KINDS
                    host=self.host.is_host(kind, inode) if self.host.trusted else None,
                    inode=inode,
                    owner_initial=self._owner(kind, inode),
                )
            )
        if inodes and self.host.trusted:
            self.complete.add(facts.Namespace)
        elif inodes:
            self._gap(self.host.outside_reason, facts.Namespace)

    def _owner(self, kind: str, inode: int) -> bool | None:
        key = kind, inode
        if key not in self.cache.owners:
            try:
                found = namespaces.owner_of(self.pid, kind)
            except ProcessLookupError:
                raise
            except OSError:
                found = None
            # NS_GET_PARENT of the initial user namespace itself is refused: nothing owns it but itself.
            first = kind == "user" and inode == namespaces.INITIAL["user"]
            self.cache.owners[key] = first or (None if found is None else found[1] == namespaces.INITIAL["user"])
        return self.cache.owners[key]

    def _mounts(self, view: mounts.View) -> None:
        self.facts += mounts.facts_of(view, self.host)
        self.facts += mounts.masks(view, self.host)
        self.complete |= {facts.Mount, facts.Mask}
        if not self.host.trusted:
            self._gap(self.host.outside_reason, facts.Mount, facts.EngineSocket)

    def _seccomp(self, status: Status) -> None:
        if not status.seccomp:
            self._gap("no filter is loaded", facts.SeccompFilter, applicable=False)
        elif status.seccomp == 1:
            self._gap("strict mode has no program", facts.SeccompFilter, applicable=False)
        elif not self.options.seccomp_filters:
            self._gap(
                "reading the filter stops the process for 0.2 ms and is asked for by --seccomp-filters",
                facts.SeccompFilter,
            )
        else:
            where = Where(f"/proc/{self.pid}/status")
            try:
                programs = ptrace.seccomp_filters(self.pid)
                self.facts.append(seccomp_facts.facts_of(programs, where))
            except ProcessLookupError:
                raise
            except PermissionError:
                reason = "the filter can't be read without root on the host, or by an auditor with a filter of its own"
                self._gap(reason, facts.SeccompFilter, where=where)
            except (OSError, ValueError) as error:
                self._gap(f"the filter can't be read: {_words(error)}", facts.SeccompFilter, where=where)

    def _labels(self) -> None:
        found = self._try(lambda: tuple(identity.labels(self.pid, self.host)), facts.LsmLabel)
        if found is not None:
            self.facts += found
            self.complete.add(facts.LsmLabel)

    def _resources(self) -> None:
        pid, cgroup = self.pid, self.group.first.cgroup
        if cgroup not in self.cache.limits:
            self.cache.limits[cgroup] = resources.limits(pid, self.host)
            self.cache.policies[cgroup] = resources.device_policy(pid, self.host)
        limits, unknown = self.cache.limits[cgroup]
        self.facts += limits
        self.complete.add(facts.CgroupLimit)
        if unknown:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in unknown.items())
            self._gap(reasons, facts.CgroupLimit)
        policy = self.cache.policies[cgroup]
        fact = resources.policy_fact(policy, pid)
        if fact:
            self.facts.append(fact)
        else:
            self._gap(policy.unknown or "the device policy can't be read", facts.DevicePolicy)
        self._membership(cgroup)
        self.facts.append(resources.oom_score_adj(pid))
        limits = self._try(lambda: tuple(resources.rlimits(pid)), facts.ResourceLimit)
        if limits is not None:
            self.facts += limits
            self.complete.add(facts.ResourceLimit)

    def _membership(self, cgroup: str) -> None:
        found = resources.membership(cgroup, self.host)
        if found is None:
            self._gap("no cgroup hierarchy is mounted", facts.CgroupMembership)
            return
        controller, path, version = found
        others = self.cache.host_cgroups
        self.facts.append(
            facts.CgroupMembership(
                where=Where(f"/proc/{self.pid}/cgroup"),
                path=path,
                version=version,
                shared_with_host=None if others is None else (controller, path) in others,
            )
        )

    def _descriptors(self, inodes: dict[str, int]) -> None:
        kinds = (facts.OpenDescriptor, facts.WorkingDirectory, facts.Executable)
        place = self.cache.place(self.mountinfo, inodes)
        held = self._try(lambda: descriptors.look(self.pid, place, self.host), kinds[0])
        if held is None:
            self._gap(_NEEDS_ROOT, *kinds[1:])
        else:
            self.facts += held.facts
            self._sockets_of = [(self.pid, held.sockets)]
            if held.gap:
                self._gap(held.gap, kinds[0])
            cwd = self._try(lambda: descriptors.working_directory(self.pid, place, self.host), kinds[1])
            self.facts += [cwd] if cwd else []
            exe = self._try(lambda: descriptors.executable(self.pid, place, self.host), kinds[2])
            self.facts += [exe] if exe else []
            self.complete |= {kinds[0], kinds[2]}
        self._others(place)

    def _others(self, place: descriptors.Place) -> None:
        if self.status.threads > 1:
            found, hidden = differing(self.pid, self.host)
            self.facts += found
            if hidden:
                self._gap(hidden, facts.Process)
        for entry in self.group.entries[1:]:
            member = self.cache.member(entry, place, self.host)
            self.facts += member.facts
            self._sockets_of.append((entry.pid, member.sockets))
            if member.gap:
                self._gap(member.gap, facts.OpenDescriptor, facts.Executable)
            if member.hidden:
                self._gap(member.hidden, facts.Process)
        self.complete.add(facts.Process)

    def _start_probe(self, status: Status, inodes: dict[str, int], view: mounts.View, who: identity.Identifier) -> None:
        """Begin to ask which control files open; the answer is taken by _finish_probe."""
        self._key: object = None
        self._sockets = tuple(mounts.engine_sockets(view, self.host)) if self.host.trusted else ()
        if not self.options.probe or not inodes:
            reason = _NEEDS_ROOT if self.options.probe else "the probe was left out"
            self._gap(reason, facts.ControlFile, facts.DeviceNode)
            return
        root = statx.of(f"/proc/{self.pid}/root")
        request = self._request(status, inodes, view, who, root)
        self._key = (
            request.credentials,
            tuple(sorted(inodes.items())),
            root.mount,
            root.inode,
            request.sockets,
            self.mountinfo,
        )
        if self._key in self.cache.answers:
            return
        try:
            self._running = self.prober.start(request)
        except ProcessLookupError:
            raise
        except OSError as error:
            self.cache.answers[self._key] = f"the probe can't start: {_words(error)}"

    def _request(
        self, status: Status, inodes: dict[str, int], view: mounts.View, who: identity.Identifier, root: statx.Statx
    ) -> probe.Request:
        joined = ("user", "mnt", "net", "ipc", "uts", "cgroup")
        flags = 0
        for kind in joined:
            if inodes.get(kind) != self.host.own.get(kind):
                flags |= namespaces.FLAGS[kind]
        mine = self.host.root
        return probe.Request(
            pid=self.pid,
            join=flags,
            credentials=who.credentials(status.caps, no_new_privs=bool(status.no_new_privs)),
            write=controls.to_write(view.visible),
            read=controls.READ,
            sweep=self._may_own_sysctls(status, inodes),
            nodes=frozenset(mount.mount_point for mount in view.visible if mount.mount_point.startswith("/dev/")),
            sockets=tuple([socket.path for socket in self._sockets]),
            chroot=(root.dev, root.inode, root.mount) != (mine.dev, mine.inode, mine.mount),
        )

    def _may_own_sysctls(self, status: Status, inodes: dict[str, int]) -> bool:
        """Say whether a sweep of /proc/sys can find more than what belongs to the target's own namespaces.

        Host root's files open for uid 0 and gid 0 of the host alone, whatever the capabilities (fs/proc/proc_sysctl.c,
        test_perm); those of the host's network also for CAP_NET_ADMIN in the initial user namespace. The files that are
        asked by name are tried all the same.
        """
        initial = inodes.get("user") == namespaces.INITIAL["user"]
        return initial or 0 in {*status.uids, *status.gids, *status.groups}

    def _finish_probe(self, inodes: dict[str, int]) -> None:
        if self._running is not None:
            try:
                self.cache.answers[self._key] = self._running.result()
            except probe.ProbeError as error:
                self.cache.answers[self._key] = str(error)
            self._running = None
        answer = self.cache.answers.get(self._key)
        if not isinstance(answer, probe.Answer):
            if answer is not None:
                self._gap(answer, facts.ControlFile, facts.DeviceNode)
            self.facts += self._sockets
            return
        hosts = {kind: self.host.is_host(kind, inode) for kind, inode in inodes.items()}
        self.facts += self._controls(answer, hosts)
        self.complete |= {facts.ControlFile, facts.EngineSocket}
        if not answer.label:
            self._gap(
                "the probe could not take on the security module's label, which may refuse more", facts.ControlFile
            )
        self.facts += [replace(socket, permitted=answer.sockets.get(socket.path)) for socket in self._sockets]
        # A socket stays in the network namespace that it was made in: an inherited one is the host's.
        self._connected(None if self.host.peers is None else self.host.peers | (answer.peers or {}))
        self._devices(answer)

    def _controls(self, answer: probe.Answer, hosts: dict[str, bool | None]) -> tuple[facts.ControlFile, ...]:
        """Give the facts of the control files; targets with the same answer share them."""
        key = id(answer), *hosts.items()
        if key not in self.cache.controls:
            self.cache.controls[key] = tuple(controls.facts_of(answer.write, answer.read, hosts))
        return self.cache.controls[key]

    def _connected(self, peers: dict[int, int] | None) -> None:
        if not self.host.trusted or not self.host.engine_ends:
            return  # no engine listens on this host
        if peers is None:
            self._gap("this kernel does not tell the other end of a socket (CONFIG_UNIX_DIAG)", facts.EngineSocket)
            return
        for pid, sockets in self._sockets_of:
            self.facts += descriptors.engine_sockets(pid, sockets, peers, self.host)

    def _devices(self, answer: probe.Answer) -> None:
        key = id(answer), self.group.first.cgroup
        if key not in self.cache.permitted:
            policy = self.cache.policies[self.group.first.cgroup]
            self.cache.permitted[key] = tuple([resources.permits(policy, node) for node in answer.devices])
        root = f"/proc/{self.pid}/root"
        self.facts += [
            facts.DeviceNode(
                where=Where(root + node.path), path=node.path, kind="block" if node.block else "char",
                major=node.major, minor=node.minor, usable=node.usable, policy=permitted,
            )
            for node, permitted in zip(answer.devices, self.cache.permitted[key], strict=True)
        ]  # fmt: skip
        if "devices" in answer.errors:
            self._gap(answer.errors["devices"], facts.DeviceNode)
        else:
            self.complete.add(facts.DeviceNode)

    def _declared(self) -> None:
        engine, state = self.group.engine, self.group.state
        found = own.configuration(engine.name, engine.id, state) if engine else None
        if found is None:
            self._gap("no configuration is known that it was started from", facts.Declared, applicable=False)
            return
        path, spec = found
        self.facts = list(declared.compare(spec, path, self.facts, self.view))
        self.complete.add(facts.Declared)

    def _runtime(self, status: Status) -> None:
        engine = self.group.engine.name if self.group.engine else None
        try:
            arguments = process.cmdline(self.pid)
        except OSError:
            arguments = ()
        guest = engines.guest_of(status.name, arguments, engine)
        self.facts.append(facts.Runtime(where=Where(f"/proc/{self.pid}/cgroup"), engine=engine, sandbox=guest))


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
