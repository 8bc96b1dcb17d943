"""Proving what ran: each party's transfer log, reconciliation of both ends, attestations, the pack and its verifier."""
