"""Distributed zero-knowledge proofs of logged gates: recipe A for AND, recipe B for products."""
