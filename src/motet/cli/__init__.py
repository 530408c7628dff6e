"""The command line: one command a file; nothing heavy is imported before a command runs."""

from motet.cli._app import main

__all__ = ["main"]
