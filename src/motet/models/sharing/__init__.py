"""Sharing modules: shared features (B, F) to one feature per task (T, B, F)."""

from motet.models.sharing._hard import HardSharing

__all__ = ["HardSharing"]
