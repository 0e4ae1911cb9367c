#!/usr/bin/env bash
# A day with a GPU in one command: tools/on_gpu.sh [OUT.json] [--dry] [--train NAME …]
# Runs on a bare machine that has PyTorch: the CUDA tests, and the pages that are worth it on a CUDA kernel, in at most
# nine minutes, and writes what passed, how long it took and on what. Packages that the machine lacks are taken from
# wheels in the folder $WHEELS, if there is one; nothing is downloaded. --dry does the same on a CPU with one small page.
# --train NAME … trains instead (tools/on_gpu.py lists the runs), beside the record, and goes on where it stopped before.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -d "${WHEELS:-.whl}" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target .site "${WHEELS:-.whl}"/*.whl
fi
export PYTHONPATH="$PWD:$PWD/.site${PYTHONPATH:+:$PYTHONPATH}" MPLBACKEND=Agg IN_TEST=1
exec "${PYTHON:-python3}" tools/on_gpu.py "$@"
