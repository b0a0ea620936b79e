"""Collectors: each turns one kind of target into facts."""
