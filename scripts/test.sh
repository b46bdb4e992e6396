#!/usr/bin/env bash
# Everything that has to pass: ruff, mypy, unit tests, integration tests.
#
#   bash scripts/test.sh [pytest arguments]      e.g. bash scripts/test.sh -k simplex
#
# Needs Python 3.11 or later and the package registry, and makes and fills .venv itself.
# VENV=path uses that environment instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV="${VENV:-.venv}"
STAMP="$VENV/llamafactory-dids.stamp"

step() { echo "== $*"; }

find_python() {
    local python
    for python in python3.11 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "scripts/test.sh: neither python3.11 nor python3 is a Python 3.11 or later; install one" >&2
    return 1
}

# An install is good for this checkout and this setup.py.
what_is_installed() { pwd && cat setup.py; }

install() {
    if [ ! -x "$VENV/bin/python" ]; then
        step "making $VENV"
        local python
        python="$(find_python)"
        "$python" -m venv "$VENV"
    fi
    if ! what_is_installed | cmp -s - "$STAMP"; then
        step "installing into $VENV (the first time: minutes, and several GB)"
        "$VENV/bin/python" -m pip install -qq --disable-pip-version-check -e ".[test]"
        what_is_installed >"$STAMP"
    fi
}

NUM_EMPTY=0
# One of the two selections may be empty (pytest's exit code 5), when the arguments name tests of the other.
run_pytest() {
    local code=0
    "$VENV/bin/python" -m pytest "$@" || code=$?
    if [ "$code" -eq 5 ]; then
        NUM_EMPTY=$((NUM_EMPTY + 1))
    elif [ "$code" -ne 0 ]; then
        exit "$code"
    fi
}

install
step "ruff"
"$VENV/bin/python" -m ruff check .
step "mypy"
"$VENV/bin/python" -m mypy
step "unit tests"
run_pytest -m "not integration" "$@"
step "integration tests"
run_pytest -m integration "$@"
if [ "$NUM_EMPTY" -eq 2 ]; then
    echo "scripts/test.sh: no test matches: $*" >&2
    exit 5
fi
step "all passed"
