"""Notices: the closed list of signed statements that travel between parties (coordination.md, "Notices")."""
