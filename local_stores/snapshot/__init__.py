"""From an owner's store to the figures that it contributes: snapshot, contract, local plan, Gate, contribution.

Everything here happens in the clear, at the owner, before anything is shared.
"""
