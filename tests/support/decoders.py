"""Finds where the packages turn bytes or text of somebody else into values: each such place is fuzzed, or has a reason not to be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FUZZED", "NOT_FUZZED", "decoders", "decoders_of"]

_CIRCUITS, _CORE, _ORDER, _PROOFS = (f"mpc_ops/protocol/{folder}" for folder in ("circuits", "core", "order", "proofs"))
_EVIDENCE, _FEDERATION = "mpc_ops/evidence", "mpc_ops/federation"
_SFTP = "mpc_ops/server/sftp/session.py:_BoundedSFTPServer"
FUZZED: dict[str, tuple[str, ...]] = {
    # tests/adversary/test_fuzz_engine.py
    "data link": ("mpc_ops/transport/datalink.py:DataLink._judge", "mpc_ops/transport/datalink.py:DataLink._label"),
    "place of a message": ("mpc_ops/engine/runner.py:address_of",),
    "AND proof, a level": (
        f"{_PROOFS}/proof_and.py:LeftVerifier.take", f"{_PROOFS}/proof_and.py:_decode", "mpc_ops/ring/coding.py:from_bytes",
    ),
    "AND proof, the end": (f"{_PROOFS}/proof_and.py:_read_final",),
    "ring proof, elements": (f"{_PROOFS}/ring_roles.py:read_elements", "mpc_ops/ring/wide.py:from_bytes"),
    "ring proof, carries": (f"{_PROOFS}/ring_roles.py:_read_carries",),
    "rows of a shuffle": (f"{_ORDER}/row_parts.py:RowShape.read",),
    "elements of Z_2^32": (f"{_CIRCUITS}/counters.py:_read",),
    "checkpoint": (f"{_CORE}/checkpoint.py:decode_checkpoint", f"{_CORE}/checkpoint.py:_words"),
    "logic": (f"{_CIRCUITS}/boolean.py:_and_taken", "mpc_ops/ring/coding.py:from_body"),
    "products": (f"{_CIRCUITS}/products.py:_dots", f"{_CORE}/opening.py:_values"),
    "daBits": (f"{_CIRCUITS}/dabits.py:_open_masked",),
    "checkpoints": (f"{_CORE}/checkpoint.py:_common",),
    "own inputs": (f"{_CORE}/own_input.py:input_of_all",),
    "shuffle": (f"{_ORDER}/shuffle_tags.py:add_tags", f"{_ORDER}/shuffle_tags.py:open_tag_keys"),
    "sort by comparison": (f"{_ORDER}/sort_quick.py:opened_bits",),
    "tiny domain": ("mpc_ops/protocol/relational/dot_table.py:dot_table",),
    "stored state": ("mpc_ops/session/table.py:from_json",),
    # tests/adversary/test_fuzz_parties.py
    "certificate file": (f"{_FEDERATION}/pki.py:load_certificate", f"{_FEDERATION}/pki.py:issued_by"),
    "certificate of a peer": (f"{_FEDERATION}/pki.py:read_certificate", "mpc_ops/transport/tls.py:proven_party"),
    "state in a hello": ("mpc_ops/transport/links.py:LinkManager._judge",),
    "SSH key": (f"{_FEDERATION}/pki.py:ssh_fingerprint",),
    "directory entry": (f"{_FEDERATION}/loaded.py:Federation.with_directory",),
    "directory entry in a folder": (f"{_FEDERATION}/assemble.py:add_directory",),
    "membership": (f"{_FEDERATION}/loaded.py:Federation.with_membership",),
    "card": (f"{_FEDERATION}/cards.py:load_card",),
    "dispute": (f"{_EVIDENCE}/disputes.py:account_of", f"{_EVIDENCE}/disputes.py:claim_of"),
    "values of a disputed proof": (f"{_EVIDENCE}/disputes.py:_check.fits", f"{_PROOFS}/proof_and.py:public_check"),
    "sign-off": (f"{_EVIDENCE}/checks.py:_sign_offs", "mpc_ops/server/signoffs.py:_verifies"),
    "transfer log": (f"{_EVIDENCE}/ledger.py:verify_extract", f"{_EVIDENCE}/ledger.py:_link"),
    "attestation": (f"{_EVIDENCE}/statement.py:_predicate",),
    "API, body": ("mpc_ops/server/api.py:build_api.put_notice",),
    "API, notice": ("mpc_ops/server/submissions.py:Submissions.put", "mpc_ops/server/notices.py:NoticeBook._tell"),
    "API, path": ("mpc_ops/server/api.py:build_api.get_period", "mpc_ops/server/api.py:build_api.get_run"),
    "SFTP session": tuple(f"{_SFTP}.{name}" for name in ("_read_packet", "_send_server_version", "_process")),
    # tests/adversary/test_fuzz.py
    "key offer": ("mpc_ops/randomness/agreement.py:Responder.__init__", "mpc_ops/transport/datamesh.py:_receive"),
    "key reply": ("mpc_ops/randomness/agreement.py:Initiator.finish",),
    "link header": ("mpc_ops/transport/wire.py:check_header",),
    "hello": (
        "mpc_ops/transport/wire.py:decode_control", "mpc_ops/envelope/schema.py:decode", "mpc_ops/envelope/schema.py:from_plain",
    ),
    "session message": ("mpc_ops/session/messages.py:decode_message",),
    "flushed": ("mpc_ops/session/messages.py:decode_flushed",),
    "handshake": ("mpc_ops/session/handshake.py:decode_seen",),
    "sync message": ("mpc_ops/server/sync.py:decode_sync",),
    "bulk message": ("mpc_ops/server/sync.py:decode_bulk",),
    "part": (
        "mpc_ops/sharing/part.py:read_part", "mpc_ops/sharing/part.py:_check_messages", "mpc_ops/sharing/ipc_body.py:_number",
    ),
    "crossing frame": ("mpc_ops/protocol/sums/cross.py:_check_header", "mpc_ops/protocol/sums/cross.py:_vector"),
    "result part": ("mpc_ops/protocol/sums/result.py:_copies", "mpc_ops/protocol/sums/result.py:combine_parts"),
    "canonical JSON": ("mpc_ops/envelope/canonical.py:parse_canonical",),
    "envelope": ("mpc_ops/envelope/dsse.py:Envelope.parse", "mpc_ops/envelope/dsse.py:_unb64"),
    "notice": ("mpc_ops/notices/signed.py:parse_notice", "mpc_ops/notices/signed.py:_check_dates"),
    "signed release": ("mpc_ops/server/context.py:moment",),
    "plan": ("mpc_ops/plan/model.py:load_plan",),
    "plan in its federation": ("mpc_ops/plan/checks.py:read_plan",),
    "evidence bundle": (f"{_EVIDENCE}/bundle.py:read_bundle",),
    "identity key": ("mpc_ops/envelope/keys.py:IdentityPublicKey.from_text",),
    "sealing key": ("mpc_ops/envelope/sealing.py:SealingPublicKey.from_text",),
    "error of an operator's server": ("local_stores/receive/client.py:_said",),
    "answer of an operator's server": ("local_stores/receive/client.py:ApiClient._json",),
    "signature of a signer": ("local_stores/snapshot/record.py:signatures",),
    "file of a pack": (
        f"{_EVIDENCE}/verify.py:_index", f"{_EVIDENCE}/verify.py:_derived", f"{_EVIDENCE}/checks.py:_contract",
        f"{_EVIDENCE}/checks.py:valid_approvals", f"{_EVIDENCE}/rules.py:decide_flows", f"{_FEDERATION}/loaded.py:Federation.load",
        f"{_FEDERATION}/loaded.py:_load_pack", f"{_FEDERATION}/loaded.py:check_terms",
    ),
    "CSV file": ("local_stores/stores/casting.py:Casting._parse_date", "local_stores/stores/casting.py:_plain"),
    "Parquet file": ("local_stores/stores/casting.py:_exactly",),
}  # fmt: skip
"""Target of a fuzz test: the places that its good samples run through, which the test insists on."""
_OWN_DISK = "what this program wrote on the own disk"
_OWN_FILE = "a file that the party's own people wrote, read by their own command"
_CHECKED = "digests and dates whose form a schema has checked where the document was read"
_OWN_TEXT = "what this program made a moment before"
_OWN_CONFIG = "the party's own settings, keys and Airflow"
_MADE_ONCE = "the decoder is made here and used by functions that are fuzzed"
NOT_FUZZED: dict[str, str] = {
    **dict.fromkeys(("mpc_ops/server/sync.py:<module>", "mpc_ops/session/messages.py:<module>"), _MADE_ONCE),
    "mpc_ops/envelope/schema.py:built": _MADE_ONCE,
    **dict.fromkeys(
        (
            "local_stores/closing/wrapup.py:_facts", "local_stores/delivery/sealing.py:latest_take",
            "local_stores/delivery/sealing.py:seal_take", "local_stores/filing/steps.py:latest_contribution",
            "local_stores/publish/editions.py:_check_same", "local_stores/publish/history.py:_read_month",
            "local_stores/publish/history.py:load_published", "local_stores/receive/log.py:RecipientLog.extract",
            "local_stores/receive/runs.py:RunFiles.lanes", "local_stores/snapshot/record.py:read_contribution",
            "local_stores/snapshot/taking.py:_meta", "local_stores/snapshot/taking.py:load_snapshot",
            "local_stores/snapshot/unit_rows.py:unpack_rows", "mpc_ops/server/books.py:Books.entries",
            "mpc_ops/server/books.py:Books.extract",
        ),
        _OWN_DISK,
    ),
    **dict.fromkeys(
        (
            "local_stores/validation/suite.py:own_expectations", "mpc_ops/cli/report_commands.py:_text",
            "mpc_ops/cli/report_commands.py:rates", "mpc_ops/federation/assemble.py:read_toml", "mpc_ops/planner/calendar.py:_month",
            "mpc_ops/planner/calendar.py:read_calendar", "mpc_ops/planner/release.py:check_calendar",
            "mpc_ops/planner/terms.py:read_terms",
        ),
        _OWN_FILE,
    ),
    **dict.fromkeys(
        (
            "local_stores/airflow_provider/tasks.py:StepTask._run", "local_stores/airflow_provider/timetable.py:_as_date",
            "local_stores/airflow_provider/timetable.py:_as_moment", "local_stores/airflow_provider/triggers.py:PollTrigger.run",
            "local_stores/config/files.py:read_toml", "local_stores/config/site.py:StoreConfig.password",
            "local_stores/delivery/sftp.py:_private_key", "mpc_ops/envelope/keys.py:IdentityKey.load",
            "mpc_ops/envelope/sealing.py:SealingKey.load", "mpc_ops/federation/cards.py:_lines",
            "mpc_ops/federation/pki.py:CertificateAuthority.load", "mpc_ops/federation/pki.py:issue_leaf",
            "mpc_ops/server/config.py:load_config", "mpc_ops/server/sftp/config.py:load_config",
            "mpc_ops/server/sftp/server.py:load_host_key",
        ),
        _OWN_CONFIG,
    ),
    **dict.fromkeys(
        (
            "local_stores/filing/readiness.py:_moment", "local_stores/publish/text.py:period_label",
            "local_stores/snapshot/encoder.py:_bounds", "local_stores/snapshot/periods.py:slice_ranges",
            "mpc_ops/engine/attempt.py:Attempt.start", "mpc_ops/plan/bounds.py:_check_date",
            "mpc_ops/server/notices.py:NoticeBook.announce_all",
            "mpc_ops/server/notices.py:NoticeBook.ask_again", "mpc_ops/server/notices.py:NoticeBook.on_holdings",
        ),
        _CHECKED,
    ),
    **dict.fromkeys(
        (
            "local_stores/snapshot/local_plan.py:_unscaled", "local_stores/snapshot/local_plan.py:run_sandboxed",
            "local_stores/snapshot/plan_worker.py:main", "mpc_ops/federation/cards.py:create_party",
            "mpc_ops/federation/pki.py:create_ssh_key", "mpc_ops/ring/field61.py:PrimeField.convolve",
            "mpc_ops/server/accounts.py:Accounts._statement", "mpc_ops/server/supervise.py:ManagedProcess.last_line",
            "mpc_ops/server/supervise.py:ManagedProcess.wait_ready",
        ),
        _OWN_TEXT,
    ),
    "mpc_ops/evidence/verify.py:_blame": "says which of two index files was changed; any error of ours is the answer",
    "mpc_ops/sharing/components.py:Component.from_body": "only tests and vectors read a component by itself",
}  # fmt: skip
"""Places that are not fuzzed by themselves, and why."""

CALLS = {
    "convert", "Decoder", "from_bytes", "from_body", "frombuffer", "unpack", "unpack_from", "iter_unpack", "loads", "load", "b64decode",
    "fromhex", "unhexlify", "from_public_bytes", "from_private_key", "load_pem_private_key", "load_pem_public_key",
    "load_pem_x509_certificate", "load_der_x509_certificate", "open_stream", "open_file", "read_table", "ParquetFile", "load_workbook",
    "read_csv", "read_excel", "fromisoformat", "strptime", "unpackbits", "parse_canonical", "literal_eval", "fromstring",
}  # fmt: skip
"""Names of functions and methods that read a form."""
MODULES = {"msgspec", "json", "tomllib", "yaml", "np", "numpy", "struct", "base64", "binascii"}
OWN_TEXT = {"b64encode", "encode", "to_bytes", "public_bytes", "hexdigest", "dumps"}
"""What is decoded right after one of these was made here."""


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _reads(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = _name(node.func)
    if name == "load":  # many classes have such a method; what it calls counts
        return isinstance(node.func, ast.Attribute) and _name(node.func.value) in MODULES
    if name == "decode" or name.endswith("_decode"):
        inner = node.func.value if isinstance(node.func, ast.Attribute) else None
        return not (isinstance(inner, ast.Call) and _name(inner.func) in OWN_TEXT)
    return name in CALLS or (name in {"str", "bytes"} and len(node.args) == 2)


def _inside(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        own = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        name = f"{prefix}.{node.name}".lstrip(".") if own else prefix
        yield name, node
        yield from _inside(node, name)


def decoders_of(source: str) -> set[str]:
    """Return the functions of a module that read a form; `<module>` for what is made once."""
    return {name or "<module>" for name, node in _inside(ast.parse(source)) if _reads(node)}


def decoders(*packages: Path) -> set[str]:
    """Return them for packages, as `package/folder/module.py:Class.function`."""
    found = set()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            where = path.relative_to(package.parent).as_posix()
            found |= {f"{where}:{name}" for name in decoders_of(path.read_text(encoding="utf-8"))}
    return found
