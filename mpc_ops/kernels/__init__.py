"""Compiled kernels for the local work of proofs and bit-planes: C behind checked calls, or numpy where there is no compiler.

`mpc_ops.ring` and `mpc_ops.protocol` hold every operation in numpy: the specification, the test oracle and the fallback. Where
`compiled()` says so they call `calls` instead, which gives the same values, bit by bit; so parties with and
without compiled kernels understand each other. `COMITY_KERNELS=numpy` or `compiled` chooses; unset takes what is there. `COMITY_THREADS`
lets a kernel use several processors.
"""

from mpc_ops.kernels import calls, pool
from mpc_ops.kernels.choice import KERNELS_VARIABLE, backend, compiled, using

__all__ = ["KERNELS_VARIABLE", "backend", "calls", "compiled", "pool", "using"]
