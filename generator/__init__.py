"""Writes what follows from the code: a page a method, the tables that compare them, and the lists that name them.

    python -m generator            (or: make generate)

It stands outside the package, since nobody who uses motet needs it.
"""
