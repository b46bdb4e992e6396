#!/usr/bin/env bash
# From a bare checkout to a comparison of DIDS with proportional sampling, on two CPU cores in some minutes.
#
#   bash scripts/quickstart.sh              one pair of runs
#   bash scripts/quickstart.sh --seeds 5    a pair for each of the seeds 1 to 5, compared with 95% intervals
#
# Needs Python 3.11 or later and the package registry, and makes and fills .venv itself.
# VENV=path uses that environment as it is. All that it makes lies in quickstart/; the second time it goes faster.
# The data are the same for all seeds. A seed gives the model's first weights, the order of the samples, and the
# random choices of the method (clusters, projection, sampling); both runs of a pair have the same one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/venv.sh

NUM_SEEDS=""
FOLDER=quickstart
runs=() # the folders of the runs that were made

say() { echo "== $*"; }
die() {
    echo "scripts/quickstart.sh: $*" >&2
    exit 1
}

read_arguments() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --seeds)
                NUM_SEEDS="${2:-}"
                [[ "$NUM_SEEDS" =~ ^[1-9][0-9]*$ ]] || die "--seeds: got '$NUM_SEEDS', allowed: a number from 1"
                shift 2
                ;;
            *) die "got '$1', allowed: --seeds N" ;;
        esac
    done
}

# One line that is written over until the run ends; on a screen only.
show_progress() { # title, process, output folder
    local steps
    while kill -0 "$2" 2>/dev/null; do
        steps="$(tail -n 1 "$3/trainer_log.jsonl" 2>/dev/null |
            sed -n 's/.*"current_steps": \([0-9]*\), "total_steps": \([0-9]*\).*/step \1 of \2/p' || true)"
        [ ! -t 1 ] || printf '\r   %-60s' "$1: ${steps:-preparing}"
        sleep 1
    done
    [ ! -t 1 ] || printf '\r%-64s\r' ""
}

train() { # title, output folder, overrides of the YAML's keys
    local title="$1" output="$2" log="$2.log" start="$SECONDS"
    shift 2
    rm -rf "$output"
    "$VENV/bin/llamafactory-cli" train examples/yaml/quickstart.yaml output_dir="$output" "$@" >"$log" 2>&1 &
    local process=$!
    trap 'kill "$process" 2>/dev/null' INT TERM
    show_progress "$title" "$process" "$output"
    if ! wait "$process"; then
        tail -n 30 "$log" >&2
        die "$title failed; all of its output: $log"
    fi
    trap - INT TERM
    echo "   $title: $((SECONDS - start)) s, log: $log"
}

run_pair() { # folder, seed
    local overrides=(model_name_or_path="$1/model" seed="$2")
    "$VENV/bin/python" scripts/quickstart/build_model.py --data "$FOLDER/data" --output "$1/model" --seed "$2"
    train "DIDS" "$1/dids" "${overrides[@]}"
    train "proportional" "$1/proportional" mix_strategy=proportional dids_domains=source "${overrides[@]}"
    runs+=("$1/dids" "$1/proportional")
}

run_seeds() {
    local seed
    for seed in $(seq "$NUM_SEEDS"); do
        say "seed $seed of $NUM_SEEDS"
        run_pair "$FOLDER/seeds/$seed" "$seed"
    done
}

read_arguments "$@"
use_environment ""
# One thread and no GPU: the model is too small to gain from more, and OpenMP threads that wait for a busy core
# spin, which made two threads ten times slower than one. Nothing is fetched, and nothing left in $HOME.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" CUDA_VISIBLE_DEVICES="" TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 HF_HOME="$PWD/$FOLDER/cache/huggingface"
say "data"
"$VENV/bin/python" scripts/quickstart/generate.py --output "$FOLDER/data"
if [ -z "$NUM_SEEDS" ]; then
    say "model, and two runs of the same budget"
    run_pair "$FOLDER" 1
else
    run_seeds
fi
say "result"
"$VENV/bin/llamafactory-dids" report "${runs[@]}" --output "$FOLDER/comparison.html"
echo "look at $FOLDER/comparison.html, and at dids/report.html in each run's folder"
say "all of it took $SECONDS s"
