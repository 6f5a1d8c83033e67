"""A small Hub on loopback for the tests: the real `huggingface_hub` client pushes to it and pulls from it.

It speaks the part of the Hub's HTTP API that creating a repository, pushing one commit (with LFS) and loading by name
need, keeps every revision in memory, and misbehaves on request (`faults.py`).
"""

from .faults import Fault
from .server import HubServer
from .store import Commit, HubStore, Repo

__all__ = ["Commit", "Fault", "HubServer", "HubStore", "Repo"]
