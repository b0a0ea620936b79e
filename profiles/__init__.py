"""Data that the runtime and the auditor share: modes, seccomp profiles, policies."""
