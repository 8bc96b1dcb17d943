#!/bin/sh
# Make the virtual environment from requirements.lock: with uv (seconds), else with pip (a minute). No root needed.
set -eu
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
unset PYTHONDONTWRITEBYTECODE

if ! command -v "$PYTHON" >/dev/null 2>&1; then
    echo "comity: no $PYTHON found. Install the packages that README's first line names." >&2
    exit 1
fi
"$PYTHON" - <<'PY'
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    sys.exit(f"comity: needs Python 3.11 to 3.14, found {sys.version.split()[0]}; run: make PYTHON=python3.12 ...")
PY
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV" || {
    echo "comity: python3-venv is missing. Install the packages that README's first line names." >&2
    exit 1
}
bin="$VENV/bin"
"$bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-bootstrap.lock
if ! "$bin/uv" pip sync --quiet --python "$bin/python" --require-hashes --compile-bytecode requirements.lock; then
    echo "comity: uv could not install; trying pip" >&2
    "$bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
fi
# Our two distributions, editable, without asking any index.
"$bin/uv" pip install --quiet --python "$bin/python" --no-deps --no-build-isolation --offline -e ./mpc_ops -e .
"$bin/python" -m compileall -q mpc_ops local_stores infra/demo || true
