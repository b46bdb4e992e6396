# Sourced by the other scripts: `use_environment EXTRAS` sets VENV to an environment that has this checkout installed.
#
# VENV=path in the environment: that one, as it is. Otherwise .venv, made with Python 3.11 or later, and filled again
# when setup.py changes. The install is editable, so that it follows the checkout and serves every script.

find_python() {
    local python
    for python in python3.11 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "$0: neither python3.11 nor python3 is a Python 3.11 or later; install one" >&2
    return 1
}

use_environment() { # extras: "" or "[test]"
    if [ -n "${VENV:-}" ]; then
        [ -x "$VENV/bin/llamafactory-dids" ] && return
        echo "$0: VENV: $VENV has no bin/llamafactory-dids; install the checkout into it" >&2
        return 1
    fi
    VENV=.venv
    local wanted stamp python
    wanted="$(pwd && cat setup.py)"
    for stamp in "$VENV/installed$1" "$VENV/installed[test]"; do # [test] has all that the plain install has
        [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
    done
    if [ ! -x "$VENV/bin/python" ]; then
        python="$(find_python)"
        "$python" -m venv "$VENV"
    fi
    echo "== installing into $VENV (the first time: minutes, and several GB)"
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check -e ".$1"
    echo "$wanted" >"$VENV/installed$1"
}
