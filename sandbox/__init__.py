"""The runtime: from a request to a running process with exactly the privilege that was asked for."""
