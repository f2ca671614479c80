#!/usr/bin/env bash
# Install what is missing: Debian packages that ffcv is built against, then .venv with the project in it.
# Used by the Makefile; safe to run again. PYTHON chooses the interpreter (3.10 or later).
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}

missing=()
command -v pkg-config >/dev/null || missing+=(pkg-config)
command -v g++ >/dev/null || missing+=(g++)
command -v "$PYTHON" >/dev/null || missing+=(python3)
pkg-config --exists libturbojpeg 2>/dev/null || missing+=(libturbojpeg0-dev)
pkg-config --exists opencv4 2>/dev/null || missing+=(libopencv-dev)
if command -v "$PYTHON" >/dev/null; then
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    "$PYTHON" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        missing+=(python3-dev)
fi
if [ ${#missing[@]} -gt 0 ]; then
    install="apt-get install -y --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" = 0 ]; then
        echo "Installing Debian packages: ${missing[*]}"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
    elif sudo -n true 2>/dev/null; then
        echo "Installing Debian packages: ${missing[*]}"
        sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
    else
        echo "ffcv needs Debian packages that are missing here. Run this once, then make again:" >&2
        echo "  sudo apt-get update && sudo $install" >&2
        exit 1
    fi
fi

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "Python 3.10 or later is needed; $PYTHON is $("$PYTHON" --version). Set PYTHON=..." >&2
    exit 1
}
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
echo "Installing Python packages into .venv (several GB on the first time)"
# uv installs the same packages eight times as fast (38 s against 325 s, 2 cores); pip does it where uv cannot.
# Compiled at once, as pip does too: where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process
# would compile what it imports again (10 s instead of 5; a Ray run starts three one after the other).
if .venv/bin/python -m pip install -q --disable-pip-version-check uv &&
    .venv/bin/uv pip install -q --compile-bytecode --python .venv/bin/python -e '.[dev]'; then
    :
else
    .venv/bin/python -m pip install -q -e '.[dev]'
fi
touch .venv/.installed
