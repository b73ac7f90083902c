#!/bin/bash
# One idempotent step for demo, tests and bench: Debian packages that are missing, then the venv from the hashed lock.
# usage: tools/setup.sh [test] [bench] [apiserver] [image]     each word adds that purpose's packages to what the demo needs
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin"

# command:package. A command that is there already, from wherever, is left alone.
commands=(ip:iproute2 nft:nftables curl:curl nginx:nginx-light ps:procps)
# package. Python modules and their like, which only the distribution's own python3 sees.
packages=(python3 python3-venv python3-nftables ca-certificates)
for purpose in "$@"; do
    case $purpose in
        test) commands+=(conntrack:conntrack tcpdump:tcpdump tshark:tshark iptables:iptables go:golang-go psql:postgresql-client
                         /usr/lib/postgresql/15/bin/postgres:postgresql-15 setpriv:util-linux gcc:gcc
                         containerd:containerd runc:runc)
              packages+=(libc6-dev containernetworking-plugins busybox-static) ;;
        bench) commands+=(haproxy:haproxy wrk:wrk taskset:util-linux) ;;
        apiserver) commands+=(etcd:etcd-server etcdctl:etcd-client) ;;
        image) commands+=(mmdebstrap:mmdebstrap buildah:buildah) ;;
        *) echo "setup: unknown purpose '$purpose'; known: test bench apiserver image" >&2; exit 2 ;;
    esac
done

say() { printf 'setup: %s\n' "$*" >&2; }
log=build/setup.log
mkdir -p build
quietly() {
    "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; say "failed: $* (whole output: $log)"; exit 1; }
}

missing() {
    local pair package
    for pair in "${commands[@]}"; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
    for package in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

policy=/usr/sbin/policy-rc.d
install_packages() {
    if [[ $EUID -ne 0 ]]; then
        say "missing: $*. Run as root, or install them and try again"; exit 1
    fi
    if ! command -v apt-get >/dev/null; then
        say "missing: $*. Only Debian's apt-get is known here: install them by hand and try again"; exit 1
    fi
    say "installing with apt-get: $*"
    # Debian starts a daemon as soon as it is installed, unless policy-rc.d says 101 (invoke-rc.d(8)); one that is
    # there already is somebody's decision and stays.
    local ours=
    if [[ ! -e $policy ]]; then
        ours=yes
        trap 'rm -f "$policy"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get update
    quietly apt-get install -y --no-install-recommends "$@"
    if [[ $ours ]]; then rm -f "$policy"; fi
    trap - EXIT INT TERM
}

mapfile -t absent < <(missing)
if ((${#absent[@]})); then
    install_packages "${absent[@]}"
    mapfile -t absent < <(missing)
    if ((${#absent[@]})); then say "still missing after installation: ${absent[*]}"; exit 1; fi
fi

# A stamp names all that its step was made from: an equal one means nothing to do.
venv_stamp=.venv/.headgate-venv
install_stamp=.venv/.headgate-install
venv_from=$({ /usr/bin/python3 -VV; cat requirements/dev.lock; pwd; } | sha256sum)
install_from=$(cat setup.cfg pyproject.toml | sha256sum)
is_current() { [[ -f $1 && $(cat "$1") == "$2" ]]; }

pip=(.venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check)

if ! is_current "$venv_stamp" "$venv_from"; then
    say "making .venv with /usr/bin/python3 (its nftables module follows the kernel, not PyPI)"
    rm -rf .venv
    quietly /usr/bin/python3 -m venv --system-site-packages .venv
    say "installing the Python packages of requirements/dev.lock (about a minute)"
    # --ignore-installed: a package of the distribution with the same name must not stand in for the locked one.
    quietly "${pip[@]}" --ignore-installed --require-hashes -r requirements/dev.lock
    printf '%s\n' "$venv_from" >"$venv_stamp"
fi
if ! is_current "$install_stamp" "$install_from" || [[ ! -x .venv/bin/headgate ]]; then
    quietly "${pip[@]}" --no-deps --no-build-isolation -e .
    printf '%s\n' "$install_from" >"$install_stamp"
    say "done"
fi
