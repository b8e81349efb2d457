# Sourced: make the Python environment if it is absent or older than its lock file.
#   need_env runtime|dev
# A bare Debian 12 machine has python3.11; python3-venv may be missing, then one sentence says so.

fail() { echo "rackmesh: $*" >&2; exit 1; }

need_env() {
    local lock=requirements.lock stamp want
    [ "$1" = dev ] && lock=requirements-dev.lock
    stamp=.venv/.made-from
    want="$(sha256sum "$lock" pyproject.toml | sha256sum | cut -d' ' -f1)"
    if grep -qs "^$want\$" "$stamp"; then return; fi
    mkdir -p .cache
    exec 9> .cache/env.lock
    if command -v flock >/dev/null; then flock 9; fi # one at a time
    if grep -qs "^$want\$" "$stamp"; then exec 9>&-; return; fi
    local python=${RACKMESH_PYTHON:-}
    for p in "$python" python3.11 python3 python3.12 python3.13; do
        [ -n "$p" ] && command -v "$p" >/dev/null 2>&1 || continue
        "$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && python=$p && break
    done
    [ -n "$python" ] || fail "Python 3.11 or newer was not found; on Debian 12: apt-get install python3 python3-venv"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "this Python cannot make virtual environments; on Debian 12: apt-get install python3-venv"
    echo "making the Python environment in .venv from $lock" >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    unset PYTHONDONTWRITEBYTECODE
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r "$lock" ||
        fail "the packages of $lock could not be installed (see above); a package index must be reachable once"
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
    .venv/bin/python -m compileall -q node mesh hub drivers cache rackmesh.py || true
    if [ "$1" = dev ]; then # a dev environment also serves as a runtime one
        { echo "$want"; sha256sum requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1; } > "$stamp"
    else
        echo "$want" > "$stamp"
    fi
    exec 9>&-
}
