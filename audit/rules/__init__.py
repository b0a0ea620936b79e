"""All rules, by id, in the order of the subjects. A new module of rules is named here and nowhere else."""

from types import ModuleType

from stockade.audit.rule import Rule
from stockade.audit.rules import (
    accounts,
    capabilities,
    capability_groups,
    capability_sets,
    daemon,
    daemon_access,
    descriptors,
    devices,
    dockerfile,
    dockerfile_files,
    drift,
    engines,
    file_systems,
    host,
    host_kernel,
    identity,
    images,
    kubernetes,
    left_out,
    mounts,
    namespaces,
    network,
    procfs,
    rbac,
    resources,
    seccomp,
    secrets,
    versions,
    volumes,
)


def _rules_of(*modules: ModuleType) -> dict[str, Rule]:
    rules = [value for module in modules for value in vars(module).values() if isinstance(value, Rule)]
    by_id = {rule.id: rule for rule in rules}
    if len(by_id) != len(rules):
        raise TypeError("two rules have the same name")
    unknown = {covered for rule in rules for covered in rule.covers} - by_id.keys()
    if unknown:
        raise TypeError(f"covers= names rules that do not exist: {sorted(unknown)}")
    return by_id


RULES: dict[str, Rule] = _rules_of(
    identity, accounts, capabilities, capability_groups, capability_sets, namespaces, mounts, file_systems, procfs,
    devices, seccomp, resources, descriptors,
    drift, left_out, volumes, network, secrets, images, dockerfile,
    dockerfile_files, kubernetes, rbac, host, host_kernel,
    daemon, daemon_access, engines, versions,
)  # fmt: skip
