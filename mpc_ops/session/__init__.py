"""State machines of a run, without I/O: events in, actions out (coordination.md is their specification).

Machines: `FILING` (one owner's filing at one region operator), `SESSION` (one run at one cluster, at one operator) and
`RUN` (what users see). `machine.step(state, event)` returns `(next_state, actions)` or raises and changes nothing.
States are frozen structs; `to_json(state)` / `from_json(SessionState, data)` are their stored form. Nothing here reads a
clock, draws randomness or touches a socket: nonces and facts arrive in events.

How a driver (mpc_ops.server, tests/support/sim.py) must use them
=================================================================

**The one rule.** For every event: `after, actions = SESSION.step(before, event)`; then, in ONE durable transaction, store
`to_json(after)`, the outputs named below and the ledger lines; only after that transaction is on disk carry out the
actions, in their order. If the process dies before the transaction, the event never happened; if it dies after it, the
start-up events below repeat the actions. Every action may be carried out twice. Events of one session are serialised.
If `step` raises: StateError = the caller asked too early or too late (HTTP 409); PeerProtocolError = drop the message,
write the peer and the code to the ledger; LocalProtocolError STATE_ROLLED_BACK = stop taking part in this session, tell
the administrator.

**Start-up.** Take the volume's lock, increase and store the boot counter, then for each stored session:
`Retry(nonce=<32 fresh random bytes, hex>)`. PREPARED goes to the next attempt (the old keys died with the process),
ACCEPTED stays and asks, COMMITTED releases again, FAILED/REFUSED tell again, ERASED erases again. For each filing:
`AskFiling()`. On every new link: exchange `encode_seen(SeenOfPeer(...))` in the hello, `check_not_rolled_back(...)`, then
`Ask()` for each live session shared with that peer and `AskFiling()` for each of its filings.

**Region session** (kind "region"; position = index in the federation's operator order of the cluster):

1. The manifest notice is valid. For each filing of this region: `FILING.step(f, ManifestNames(...))`, for each owner it
   leaves out `ManifestOmits(run_id)`. Any StateError code (FILING_CHANGED, FILING_NOT_AGREED, ...), or approvals or rules
   that do not hold *now*, become `SESSION.step(s, Refuse(code))`. Otherwise `Ready(nonce)`: all in one transaction.
2. `BeginAttempt(a)`: drop the previous `engine.Attempt`, delete unsent outputs of earlier attempts, create
   `engine.Attempt(AttemptContext(...), identity)`. It lives in memory only, and it accepts early messages from peers.
3. `Send(to, Prepare)`: to that peer over its link (journal it with the transaction; losing it is harmless, `Ask` repeats).
4. A peer's durable message: `event = event_of(message, position, fresh_nonce)`, then step. `event_of` returns None for
   work messages (KexOffer, KexReply, KexConfirm, Frame, Seen): give them to the attempt object if `message.attempt ==
   state.attempt` and the state is PREPARED or ACCEPTED, else drop them. The attempt object stays alive in ACCEPTED, so
   that it can repeat what a slower peer lost; in COMMITTED nobody needs it any more (`attempt.close()`).
5. `StartWork(a, nonces)`: `outgoing = attempt.start(nonces, stage)`; send each `(position, message)`. For every work
   message: `outgoing = attempt.receive(position, message)`; send. With each `Ask` while PREPARED or ACCEPTED also send
   `attempt.repeat()`, and on a new connection `attempt.repeat(lost=(position,))`.
   `stage` is a program over rounds (`engine.region_program` or `engine.group_program` closed over the inputs), called once,
   when both pair keys are confirmed. An Abort that it raises, or a failed comparison in `receive`, becomes
   `CheckFailed(a, error.code, pair)` with `pair = attempt.blamed(error)`. PeerProtocolError from `receive`: the same (the
   link is authenticated: the peer did it). A transient error (frames that nobody keeps any longer): `Retry`.
   `start` and `receive` may compute for long: they may run in another thread, all calls of one attempt in order, if the
   results are looked at with the state that is stored when they come back, and those of a dropped attempt are ignored.
6. When `attempt.done` is not None: seal each crossing body to its group operator (HPKE), sign the sealed frames (Purpose
   CROSS), and then in ONE transaction: the sealed frames and signatures (journal, unsent) and the state after
   `Proven(a, attempt.done.links)`. *Frames durable before ACCEPTED; ACCEPTED durable before ACCEPT is sent.*
7. `Release(a)` (only ever emitted in COMMITTED): send the journaled crossing frames of attempt a, the same bytes each
   time, until the group operator has confirmed them. Ledger lines hold the digest of the sealed frame.
8. `DropAttempt`: close and forget the attempt object, delete unsent frames. `EraseSession`: delete shares, frames, results.
   `Announce(phase, code, pair)`: sign and publish a `state` notice (skip if the same one is already published).
9. After FAILED or REFUSED: `FILING.step(f, RunEnded(run_id, committed=False))`. After acknowledgement or ttl:
   `Expire()` and `RunEnded(run_id, committed=True)`.

**Group session** (kind "group"): the same, with these differences. Inputs are the crossing frames: open each with HPKE,
check the sender's signature, store it; `Ready` only when all three frames of every region of the manifest are stored.
A region's FAILED or REFUSED notice becomes `Stop("REGION_FAILED", pair)`. In step 6 the outputs are the own result
commitment (signed as `result` notice, Purpose NOTICE) and the result part sealed to the recipient; `Release(a)` publishes
the commitment first and hands out the part only afterwards. A later attempt reuses the same crossing frames.

**Other events.** `Stop("WITHDRAWN" | "CANCELLED" | "GIVEN_UP")` for a withdrawal of an included owner, a cancel notice,
give_up_at. `Retry(nonce)` also for a time-out (default 60 s without progress in PREPARED, see `attempt.progress`) and for transient errors of the
attempt's work. `Expire()` when the table says so. Never time out ACCEPTED into a new attempt: `Retry` there only asks.

Why two results cannot exist: COMMITTED(a) needs ACCEPT(a) of all three; an operator that left attempt a never accepts it;
an operator that accepted a leaves it only on the word of one that did not (tests/state/test_session_model.py).
"""

from mpc_ops.session.filing import (
    FILING,
    FILING_PHASES,
    AnnounceFiling,
    AskFiling,
    Claim,
    EraseParts,
    ExpireFiling,
    Filed,
    FilingAction,
    FilingEvent,
    FilingRejected,
    FilingState,
    HolderClaim,
    HolderDisputes,
    ManifestNames,
    ManifestOmits,
    RunEnded,
    SendClaim,
    SendReceipt,
    Withdrawn,
    new_filing,
)
from mpc_ops.session.handshake import (
    OwnPast,
    SeenOfPeer,
    SessionMark,
    check_not_rolled_back,
    decode_seen,
    encode_seen,
)
from mpc_ops.session.machine import SESSION
from mpc_ops.session.messages import (
    MAX_MESSAGE_BYTES,
    Accept,
    Committed,
    Failed,
    Flushed,
    Frame,
    KexConfirm,
    KexOffer,
    KexReply,
    Message,
    Prepare,
    Seen,
    decode_message,
    encode_message,
)
from mpc_ops.session.run import (
    RUN,
    RUN_PHASES,
    EverythingErased,
    GroupCommitted,
    ManifestClosed,
    RegionCommitted,
    ResultPublished,
    RunCancelled,
    RunEvent,
    RunFailed,
    RunView,
    Stall,
    Stalled,
    StatementSealed,
)
from mpc_ops.session.states import (
    PHASES,
    Announce,
    Ask,
    BeginAttempt,
    CheckFailed,
    DropAttempt,
    EraseSession,
    Expire,
    LinkDigests,
    PeerAccept,
    PeerCommitted,
    PeerFailed,
    PeerPrepare,
    Proven,
    Ready,
    Refuse,
    Release,
    Retry,
    Send,
    SessionAction,
    SessionEvent,
    SessionState,
    StartWork,
    Stop,
    event_of,
    new_session,
)
from mpc_ops.session.table import Machine, Rule, from_json, to_json

__all__ = [
    "FILING",
    "FILING_PHASES",
    "MAX_MESSAGE_BYTES",
    "PHASES",
    "RUN",
    "RUN_PHASES",
    "SESSION",
    "Accept",
    "Announce",
    "AnnounceFiling",
    "Ask",
    "AskFiling",
    "BeginAttempt",
    "CheckFailed",
    "Claim",
    "Committed",
    "DropAttempt",
    "EraseParts",
    "EraseSession",
    "EverythingErased",
    "Expire",
    "ExpireFiling",
    "Failed",
    "Filed",
    "FilingAction",
    "FilingEvent",
    "FilingRejected",
    "FilingState",
    "Flushed",
    "Frame",
    "GroupCommitted",
    "HolderClaim",
    "HolderDisputes",
    "KexConfirm",
    "KexOffer",
    "KexReply",
    "LinkDigests",
    "Machine",
    "ManifestClosed",
    "ManifestNames",
    "ManifestOmits",
    "Message",
    "OwnPast",
    "PeerAccept",
    "PeerCommitted",
    "PeerFailed",
    "PeerPrepare",
    "Prepare",
    "Proven",
    "Ready",
    "Refuse",
    "RegionCommitted",
    "Release",
    "ResultPublished",
    "Retry",
    "Rule",
    "RunCancelled",
    "RunEnded",
    "RunEvent",
    "RunFailed",
    "RunView",
    "Seen",
    "SeenOfPeer",
    "Send",
    "SendClaim",
    "SendReceipt",
    "SessionAction",
    "SessionEvent",
    "SessionMark",
    "SessionState",
    "Stall",
    "Stalled",
    "StartWork",
    "StatementSealed",
    "Stop",
    "Withdrawn",
    "check_not_rolled_back",
    "decode_message",
    "decode_seen",
    "encode_message",
    "encode_seen",
    "event_of",
    "from_json",
    "new_filing",
    "new_session",
    "to_json",
]
