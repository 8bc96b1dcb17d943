"""Validation for people: Great Expectations on the snapshot, and control totals tied to the owner's ledger.

Results hold pass and fail, never a value. What computation rests on is enforced again by `snapshot.encoder`.
"""
