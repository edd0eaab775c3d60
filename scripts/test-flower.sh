#!/usr/bin/env bash
# The tests against a real SuperLink, in one command: makes a virtual environment with Flower (kept in target/flower-venv-VERSION),
# then runs federations on loopback, on free ports. Fails, and says why, where Python or Flower cannot be had.
#
#   scripts/test-flower.sh [name of a test]
#   FEDPER_FLOWER=optional            where Flower cannot be had, say how many tests are skipped, and do not fail
#   FEDPER_FLOWER_VERSION=1.41.0      another version of Flower
#   FEDPER_FLOWER_KILLS=30            more kills (4)
#   FEDPER_FLOWER_ROUNDS=10           more rounds of 200 devices (1)
set -euo pipefail
cd "$(dirname "$0")/.."

version="${FEDPER_FLOWER_VERSION:-1.41.0}"
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
venv="$target/flower-venv-$version"
unavailable() {
    local count
    count="$(cat crates/fedper/tests/flower/*.rs | grep -c '^#\[ignore')"
    if [ "${FEDPER_FLOWER:-}" = optional ]; then
        echo "SKIPPED: $count tests against a SuperLink did not run: $1" >&2
        exit 0
    fi
    echo "test-flower: $1, so $count tests against a SuperLink cannot run; FEDPER_FLOWER=optional skips them" >&2
    exit 1
}

if ! [ -x "$venv/bin/flower-superlink" ]; then
    command -v python3 >/dev/null || unavailable "there is no python3"
    rm -rf "$venv"
    mkdir -p "$target"
    python3 -m venv "$venv" >/dev/null 2>&1 || unavailable "python3 cannot make a virtual environment"
    if ! "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 20 "flwr==$version"; then
        rm -rf "$venv"
        unavailable "pip cannot install flwr $version (is a package index in reach?)"
    fi
fi
echo "== federations on $("$venv/bin/flower-superlink" --version)"
# The whole workspace, so that nothing is compiled anew after its own tests; one test at a time, as each has its own
# SuperLink, which takes a core as it starts.
FEDPER_FLOWER_VENV="$venv" cargo test --release --workspace --test flower -- --include-ignored --test-threads 1 --nocapture "$@"
echo "== the tests against a SuperLink ran, with Flower $version"
