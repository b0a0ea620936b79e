"""The kernel's vocabulary: system calls, capabilities, namespaces, /proc. Standard library only."""
