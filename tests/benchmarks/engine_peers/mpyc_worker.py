"""One party of MPyC (Shamir, passive, no TLS) for one run of a workload, in the peers' own environment.

```
python mpyc_worker.py WORKLOAD x.npy y.npy -P host:port -P host:port -P host:port -I 0
```
Prints one JSON line: `began`, `ended` (from the inputs being shared to the output), `digest`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any

WORKLOAD, FILES = sys.argv[1], [argument for argument in sys.argv[2:] if argument.endswith(".npy")]
sys.argv = [sys.argv[0], *sys.argv[2 + len(FILES) :]]  # MPyC reads the rest when it is imported

import numpy as np  # noqa: E402
from mpyc.runtime import mpc  # noqa: E402

# Products and their sum are exact in a field of 150 bits, and are reduced mod 2^64 in the clear.
BITS = {"W1": 150, "W2": 64, "W3": 64}


def program(x: Any, y: Any) -> Any:
    if WORKLOAD == "W1":
        return mpc.np_sum(mpc.np_multiply(x, y))
    return mpc.np_sum(x < y if WORKLOAD == "W2" else x == y)


async def main() -> None:
    secint = mpc.SecInt(BITS[WORKLOAD])
    columns = [np.load(file, allow_pickle=False).astype(object) for file in FILES]
    await mpc.start()
    shared = [mpc.input(secint.array(column), senders=0) for column in columns]
    for share in shared:
        await mpc.gather(share)
    await mpc.barrier()
    began = time.monotonic()
    result = await mpc.output(program(*shared))
    ended = time.monotonic()
    await mpc.shutdown()
    value = np.array([int(result) % (1 << 64)], dtype="<u8")
    digest = hashlib.sha256(b"1:" + value.tobytes()).hexdigest()
    print(json.dumps({"began": began, "ended": ended, "digest": digest}), flush=True)


mpc.run(main())
