"""Renderers: a report in, text of one format out."""
