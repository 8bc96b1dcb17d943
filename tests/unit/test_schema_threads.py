"""Many threads may decode a type for the first time at once: triggers and operators do."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, threading
import msgspec
from mpc_ops.envelope.schema import Model, from_plain

sys.setswitchinterval(1e-6)
for number in range(100):
    inner = msgspec.defstruct(f"I{number}", [("a", int), ("b", list[str])], bases=(Model,), frozen=True, kw_only=True)
    fields = [(f"f{n}", list[inner] if n % 2 else str) for n in range(30)]
    outer = msgspec.defstruct(f"O{number}", fields, bases=(Model,), frozen=True, kw_only=True)
    own = {"a": 1, "b": ["x"]}
    whole = {f"f{n}": [own] if n % 2 else "s" for n in range(30)}
    barrier = threading.Barrier(6)

    def decode(kind, value):
        barrier.wait()
        from_plain(value, kind, what="test")

    work = [(outer, whole)] * 4 + [(inner, own)] * 2
    threads = [threading.Thread(target=decode, args=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("done")
"""


def test_a_type_may_be_used_first_by_many_threads():
    """Without the lock in `built` the process ends with a segmentation fault within the first rounds."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
