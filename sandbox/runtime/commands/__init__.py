"""One module for each command of `stockade-runtime`: `run(invocation) -> int` gives the exit code."""
