"""Files that declare containers: which of them are there, what they are, and their contents with the place of each key.

Nothing here knows what a container is: audit/static/ turns what is read here into facts.
"""
