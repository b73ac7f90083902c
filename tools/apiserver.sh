#!/bin/bash
# kube-apiserver, built from Go modules pinned in tests/apiserver/module, into build/apiserver; instant when it is there.
# 11 minutes of one core (15 beside other work), 2.5 GB under GOMODCACHE and GOCACHE, 100 MB of program.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 PATH="$PATH:/usr/local/go/bin" GOFLAGS=-mod=readonly

module=tests/apiserver/module
program=build/apiserver/kube-apiserver
stamp=build/apiserver/from
fail() { printf 'apiserver: %s\n' "$*" >&2; exit 1; }

command -v go >/dev/null || fail "go is missing: install Go 1.24 or newer (golang-go, or go.dev/dl)"
from=$({ go version; cat "$module/go.mod" "$module/go.sum"; } | sha256sum)
[[ -x $program && -f $stamp && $(cat "$stamp") == "$from" ]] && exit 0

version=$(sed -n 's/^require k8s.io\/kubernetes //p' "$module/go.mod")
[[ $version =~ ^v([0-9]+)\.([0-9]+)\. ]] || fail "$module/go.mod: 'require k8s.io/kubernetes vX.Y.Z' is missing"
mkdir -p build/apiserver
printf 'apiserver: getting the modules of kubernetes %s\n' "$version" >&2
go -C "$module" mod download -x k8s.io/kubernetes k8s.io/apiserver >build/apiserver/download.log 2>&1 || {
    tail -n 5 build/apiserver/download.log >&2
    fail "no modules: the Go module proxy ($(go env GOPROXY)) must be reachable, or GOMODCACHE filled (whole output:" \
         "build/apiserver/download.log). Without them this suite cannot run against a real server."
}
printf 'apiserver: building kube-apiserver %s\n' "$version" >&2
# The version is told to clients, and decides what is on by default: a build without it is nobody's.
of=k8s.io/component-base/version
go -C "$module" build -p "${APISERVER_JOBS:-2}" -trimpath -o "$PWD/$program" -ldflags \
    "-s -w -X $of.gitVersion=$version -X $of.gitMajor=${BASH_REMATCH[1]} -X $of.gitMinor=${BASH_REMATCH[2]} -X $of.gitTreeState=clean" \
    k8s.io/kubernetes/cmd/kube-apiserver || fail "the build failed; what is above says why"
printf '%s\n' "$from" >"$stamp"
