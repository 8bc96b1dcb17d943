"""A filing from release to receipts, step by step, and its outcome: for Airflow's tasks and for `comity file`.

```
check_release → take_snapshot → validate → local_plan → sign_off_ready → share_and_seal → deliver × 3 → receipts_ready
outcome_ready → fetch_outcome
```
Every function is idempotent, takes and returns plain JSON, and its results hold references and commitments only.
"""

from __future__ import annotations

from local_stores.filing.outcome import fetch_outcome, outcome_ready
from local_stores.filing.releases import ReleaseInfo, list_releases
from local_stores.filing.steps import (
    check_release,
    deliver,
    keep_notice,
    local_plan,
    receipts_ready,
    send_to_operators,
    share_and_seal,
    sign_off,
    sign_off_ready,
    sync_outbox,
    take_snapshot,
    validate,
)

__all__ = [
    "ReleaseInfo",
    "check_release",
    "deliver",
    "fetch_outcome",
    "keep_notice",
    "list_releases",
    "local_plan",
    "outcome_ready",
    "receipts_ready",
    "send_to_operators",
    "share_and_seal",
    "sign_off",
    "sign_off_ready",
    "sync_outbox",
    "take_snapshot",
    "validate",
]
