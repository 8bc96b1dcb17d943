"""What Airflow shows beside each kind of DAG: what it does, what to do when it stops. Markdown."""

from __future__ import annotations

__all__ = ["FILE", "GROUP", "OUTCOME", "SNAPSHOT"]

FILE = """\
### File this owner's contribution to a report

One run for each period of the signed calendar, from the moment the period opens; missed periods are filed later and
closed ones end as *skipped* (PERIOD_CLOSED). By hand: trigger with a partition key, or with `{"period": "2026-10"}`.

| task | what it does | when it fails |
|---|---|---|
| `check_release` | release, own approval, period keys, edition; reads no data | *failed*: approve, or ask the author; *skipped*: closed |
| `snapshot` | immutable copies of the datasets, one for each period and cut | the store; retried when it does not answer |
| `validate` | contract and expectations | the page that the message names; correct the source, clear this task |
| `local_plan` | subtotals; small cells moved, where the Gate is the owner's | the message names column and rule |
| `sign_off` | waits for two signatures over the commitment (`comity sign-off`) | gives up after `[comity] wait_days` |
| `share_and_seal` | shares once, seals one part for each operator | |
| `deliver` | uploads one part; the same bytes again are no news | retried; an operator that refuses is named |
| `await_receipts` | waits for three receipts | *rejected* or *disputed* with its reason |

**Clearing.** `deliver` and later: nothing is sent twice. `share_and_seal` or earlier: a new take replaces the filing
until the period is closed; other figures need new signatures.
"""

SNAPSHOT = """\
### Take a snapshot of one dataset

Checks first that an approved report may use the dataset, then takes the snapshot of the period and cut, once, and
emits the partitioned asset. Filings of the period find the same snapshot, so that two reports tie. Clearing takes no
second one unless the source's cut changed.
"""

OUTCOME = """\
### Follow the run that this owner filed for

Waits for the outcome in the operators' outboxes and fetches state, statement and evidence. It sends nothing. A failed
run is told here with the stable code and the party; `comity evidence verify` checks what was fetched.
"""

GROUP = """\
### Close a period, compute and publish a group report

| task | what it does | when it stops |
|---|---|---|
| `await_filings` | waits until every owner has filed, or until due time | see who is late: `comity group status` |
| `close` | signs the manifest and posts it: the start of the run | RUN_EXISTS: a run is live, nothing to do |
| `await_result` | waits for the clusters | *failed* names the party or the pair; nothing was released |
| `fetch` | three sealed parts | |
| `verify` | commitments, statements, evidence; before anything is published | do not publish; keep the folder |
| `publish` | Parquet, CSV, XLSX and a page; refuses other bytes for the same edition | |
| `acknowledge` | tells the operators, who erase | |
| `await_deletions` | waits until each one attests it, and signs the closing attestation | an operator is down |

Periods close one after another, oldest first, because the year to date adds published months. Every task may be
cleared: ids come from plan, period and filings, never from the DAG run.
"""
