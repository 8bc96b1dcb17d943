"""`python -m mpc_ops.server.sftp --config FILE`: run the embedded SFTP server until SIGTERM."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path

from mpc_ops.errors import ComityError
from mpc_ops.server.sftp.config import load_config
from mpc_ops.server.sftp.server import SftpServer

__all__ = ["main"]

_ENDING = {signal.SIGTERM, signal.SIGINT}


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mpc_ops.server.sftp", description="Embedded SFTP server")
    parser.add_argument("--config", type=Path, required=True, help="TOML configuration file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it logs tracebacks of strangers' garbage
    # Blocked before any thread starts, so that every thread inherits it and `sigwait` below gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        config = load_config(options.config)
        server = SftpServer(config)
        port = server.start()
    except ComityError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    ready = {"ready": "sftp", "host": config.listen_host, "port": port, "host_key": server.host_key}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    signal.sigwait(_ENDING)
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
