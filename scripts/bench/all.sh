#!/usr/bin/env bash
# Every benchmark of README.md with the settings that its tables have, each result as a JSON file.
#
#   bash scripts/bench/all.sh results            an hour on an idle machine of two cores
#   DATAFLEX=/path/to/venv/bin/python PROJECTORS=/path/to/venv/bin/python bash scripts/bench/all.sh results
#
# DATAFLEX is the python of an environment with dataflex 1.1, PROJECTORS of one with traker beside what this package
# needs; what is not given is left out. A result that is there already is not measured again.
set -euo pipefail
out="${1:?a folder for the results}"
mkdir -p "$out"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
common=(--threads 1 --clock cpu --json)

measure() { # name, python, script, options
    local name="$1" python="$2" script="$3"
    shift 3
    [ -e "$out/$name.json" ] && return
    echo "== $name" >&2
    "$python" "$here/$script" "$@" "${common[@]}" >"$out/$name.json.part"
    mv "$out/$name.json.part" "$out/$name.json"
}

measure sampler python sampler.py
measure plan python plan.py
measure curves python curves.py
measure shares python shares.py
measure gradients python gradients.py --rounds 5 --samples 16
measure kmeans_60k python kmeans.py --rows 60000 --clusters 72
measure kmeans_240k python kmeans.py --rows 240000 --clusters 72 --starts 1
measure kmeans_940k_72 python kmeans.py --rows 940000 --clusters 72 --starts 0
measure kmeans_940k_1152 python kmeans.py --rows 940000 --clusters 1152 --starts 0 --rounds 1
measure overhead python overhead.py ${DATAFLEX:+--dataflex "$DATAFLEX"}
measure projectors "${PROJECTORS:-python}" gradients.py --projectors --rounds 2
