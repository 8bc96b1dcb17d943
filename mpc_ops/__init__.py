"""Comity's computation, its agreements and its proofs: all that an operator, a reviewer or an approver runs.

Modules in dependency order: errors, ids, envelope, ring, randomness, federation, sharing, transport, notices,
plan, protocol, session, planner, engine, evidence, server, cli. Nothing here can read a data owner's store.
"""

__version__ = "0.1.0"
