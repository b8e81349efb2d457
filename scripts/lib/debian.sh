# Sourced: install the Debian packages that tests need, as root on Debian; elsewhere say so.

need_debian_packages() {
    local wanted missing=() p
    mapfile -t wanted < <(grep -v '^#' scripts/lib/debian-packages-test.txt | grep .)
    if ! command -v dpkg-query >/dev/null 2>&1; then
        echo "test: not Debian: tests that need Debian packages will be skipped" >&2; return
    fi
    for p in "${wanted[@]}"; do
        dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        echo "test: not root: tests that need these Debian packages will be skipped: ${missing[*]}" >&2; return
    fi
    echo "test: installing Debian packages: ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || echo "test: apt-get update failed; trying with the lists at hand" >&2
    # Daemons that come with these packages must not start: the tests run their own.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' RETURN
    fi
    apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        echo "test: some Debian packages could not be installed; their tests will be skipped" >&2
}
