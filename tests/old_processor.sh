#!/usr/bin/env bash
# Runs tests with the kernels that torch and oneDNN take on an older processor, without AVX:
#
#     tests/old_processor.sh tests/test_updater.py tests/test_networks.py
set -euo pipefail
export ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2
exec python -m pytest "$@"
