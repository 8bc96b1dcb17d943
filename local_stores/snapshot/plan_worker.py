"""The process that runs one local plan: DuckDB without files, network, extensions, Python variables or configuration.

Run as a script, never imported: reads a header and an Arrow stream from stdin, writes an Arrow stream to stdout. On
failure it writes the class of the error, and nothing else, to stderr: DuckDB's messages quote values.
"""

from __future__ import annotations

import json
import resource
import sys

import duckdb
import pyarrow as pa

_OPEN_FILES = 64
_FAILED = 3


def _limit() -> None:
    # No core dump, no file written (whatever SQL may try), few descriptors.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))


def sandboxed(memory_mb: int, threads: int) -> duckdb.DuckDBPyConnection:
    """Return an in-memory connection that reaches nothing but tables registered by name, and cannot be reconfigured."""
    return duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "python_enable_replacements": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_unsigned_extensions": "false",
            "temp_directory": "",
            "memory_limit": f"{memory_mb}MB",
            "threads": str(threads),
        },
    )


def run(header: dict[str, object], table: pa.Table, out: pa.NativeFile) -> None:
    """Run the header's one SELECT on `table`, registered under the header's name."""
    connection = sandboxed(int(str(header["memory_mb"])), int(str(header["threads"])))
    connection.register(str(header["table"]), table)
    connection.execute("SET lock_configuration = true")
    statements = connection.extract_statements(str(header["sql"]))
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise duckdb.PermissionException("not one SELECT")
    reader: pa.RecordBatchReader = connection.execute(statements[0], header["parameters"]).to_arrow_reader(1 << 16)
    with pa.ipc.new_stream(out, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def main() -> int:
    """Read, run, answer."""
    _limit()
    source = sys.stdin.buffer
    header = json.loads(source.read(int.from_bytes(source.read(4), "big")))
    with pa.ipc.open_stream(source) as stream:
        table = stream.read_all()
    try:
        with pa.PythonFile(sys.stdout.buffer, mode="w") as out:
            run(header, table, out)
    except Exception as error:  # noqa: BLE001 - only its class leaves this process
        sys.stderr.write(type(error).__name__)
        return _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
