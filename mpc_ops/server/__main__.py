"""`python -m mpc_ops.server --home DIR`: run one operator until SIGTERM."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mpc_ops.server.app import run_operator

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mpc_ops.server", description="Comity operator")
    parser.add_argument("--home", type=Path, required=True, help="the operator's home folder")
    return run_operator(parser.parse_args(arguments).home)


if __name__ == "__main__":
    sys.exit(main())
