"""The OCI runtime command `stockade-runtime`, with the command line of runc and crun."""
