"""Closing a period and receiving its result: the recipient's steps, for Airflow and the command line alike.

Every function takes the recipient's `Site` first, may be repeated at any time with the same outcome, and returns JSON:
ids and references, never figures. The order of a month:

`publish_release`, `publish_reference` → `filings_ready` → `close` → `result_ready` → `fetch` → `verify` → `publish` →
`acknowledge` → `collect_closing`; besides `reopen` (a revised release) and `cancel`.
"""

from local_stores.closing.close import close, filings_ready, period_status
from local_stores.closing.result import acknowledge, fetch, publish, result_ready, run_status, verify
from local_stores.closing.submit import cancel, publish_reference, publish_release, reopen
from local_stores.closing.wrapup import collect_closing

__all__ = [
    "acknowledge",
    "cancel",
    "close",
    "collect_closing",
    "fetch",
    "filings_ready",
    "period_status",
    "publish",
    "publish_reference",
    "publish_release",
    "reopen",
    "result_ready",
    "run_status",
    "verify",
]
