"""What compose files, Quadlet units and `docker run` lines have in common: one request to one engine, and its facts."""
