#!/bin/sh
# Install gVisor's runsc, new enough for current kernels, from the distribution's own packages: Debian 12 has it in
# backports, later releases in main. As root. Changes no apt source: the extra suite is given to this one run only.
set -eu

[ "$(id -u)" = 0 ] || { echo "Run it as root: sudo $0" >&2; exit 1; }
. /etc/os-release

works() { command -v runsc >/dev/null && [ "$(runsc --version | sed -n 's/^runsc version .*\(20[0-9]\{6\}\).*/\1/p')" -ge 20230601 ] 2>/dev/null; }

works && { runsc --version | head -1; exit 0; }
command -v apt-get >/dev/null || {
    echo "No apt-get here. Put a runsc of 2023-06 or later on PATH, or name it in COVE_RUNSC." >&2
    exit 1
}
export DEBIAN_FRONTEND=noninteractive
if [ "${ID:-}" = debian ] && [ "${VERSION_ID:-0}" = 12 ]; then
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -n 's/^URIs: *\([^ ]*\/debian\)\/* *$/\1/p; s/^deb  *\(\[[^]]*\] *\)\{0,1\}\([^ ]*\/debian\)\/* .*/\2/p' | head -1)
    [ -n "$mirror" ] || { echo "No Debian mirror among the apt sources." >&2; exit 1; }
    parts=$(mktemp -d)
    trap 'rm -rf "$parts"' EXIT
    # _apt reads it.
    chmod 755 "$parts"
    cp -r /etc/apt/sources.list.d/. "$parts" 2>/dev/null || true
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" \
        >"$parts/backports.list"
    apt-get update -qq -o Dir::Etc::sourceparts="$parts"
    apt-get install -qq -y --no-install-recommends -o Dir::Etc::sourceparts="$parts" -t bookworm-backports runsc >/dev/null
else
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends runsc >/dev/null
fi
works || { echo "The runsc of this distribution is too old: $(runsc --version | head -1)" >&2; exit 1; }
runsc --version | head -1
