#!/usr/bin/env bash
# Everything that has to pass: ruff, mypy, unit tests, integration tests.
#
#   bash scripts/test.sh [pytest arguments]      e.g. bash scripts/test.sh -k simplex
#   bash scripts/test.sh quick                   ruff, and the unit tests of the method alone
#
# Needs Python 3.11 or later and the package registry, and makes and fills .venv itself.
# VENV=path uses that environment as it is; WORKERS=n (2) processes share the tests, a file each at a time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. scripts/venv.sh

step() { echo "== $*"; }

NUM_EMPTY=0
# One of the two selections may be empty (pytest's exit code 5), when the arguments name tests of the other.
run_pytest() {
    local code=0
    "$VENV/bin/python" -m pytest -n "${WORKERS:-2}" --dist loadfile "$@" || code=$?
    if [ "$code" -eq 5 ]; then
        NUM_EMPTY=$((NUM_EMPTY + 1))
    elif [ "$code" -ne 0 ]; then
        exit "$code"
    fi
}

use_environment "[test]"
step "ruff"
"$VENV/bin/python" -m ruff check .
if [ "${1:-}" = quick ]; then
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    step "the method's unit tests"
    run_pytest -q -m "not integration" tests/core tests/mixers tests/artifacts tests/training tests/test_config.py "${@:2}"
    exit
fi
step "mypy"
"$VENV/bin/python" -m mypy
# One thread: the models are too small to gain from more, and threads that wait for a busy core spin.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
step "unit tests"
run_pytest --durations=15 -m "not integration" "$@"
step "integration tests"
run_pytest --durations=25 -m integration "$@"
if [ "$NUM_EMPTY" -eq 2 ]; then
    echo "scripts/test.sh: no test matches: $*" >&2
    exit 5
fi
step "all passed"
