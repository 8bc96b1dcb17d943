"""Protocols on shares, without I/O. From the bottom: core, proofs, circuits, order and disclosure, relational; sums beside them."""
