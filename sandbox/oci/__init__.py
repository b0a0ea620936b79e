"""The OCI runtime and image specifications as typed records, JSON in and out."""
