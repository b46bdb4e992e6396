#!/usr/bin/env bash
# What a release consists of, in dist/: a wheel, built twice and the same both times, its hash, and a bill of materials.
#
#   bash scripts/release.sh
#
# The wheel's times are those of the commit, so that whoever builds it from there gets the same bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. scripts/venv.sh
use_environment "[test]"
SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
export SOURCE_DATE_EPOCH
umask 022
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
for turn in first second; do
    git archive --prefix="$turn/" HEAD | tar -x -C "$work"
    "$VENV/bin/python" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w "$work/$turn.out" "$work/$turn"
done
cmp "$work"/first.out/*.whl "$work"/second.out/*.whl
mkdir -p dist
cp "$work"/first.out/*.whl dist/
"$VENV/bin/python" scripts/supply.py licences
"$VENV/bin/python" scripts/supply.py sbom dist/sbom.json
(cd dist && sha256sum ./*.whl sbom.json | tee SHA256SUMS)
