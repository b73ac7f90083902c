#!/bin/bash
# The image: two Debian roots by mmdebstrap, wheels by the hashed lock, then daemonset/Dockerfile, for which no network and
# no registry of containers is needed any more; what it holds, as CycloneDX, beside it.
# usage: tools/image.sh [headgate|bcc]
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 PATH="$PATH:/usr/sbin:/sbin"

target=${1:-headgate}
case $target in
    headgate) tag= ;;
    bcc) tag=-bcc ;;
    *) echo "image: unknown target '$target'; known: headgate bcc" >&2; exit 2 ;;
esac
version=$(sed -n 's/^version = //p' setup.cfg)
out=build/image
# Of the last commit: who builds it twice has the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y setup.cfg)
export SOURCE_DATE_EPOCH
mkdir -p "$out/wheels"

say() { printf 'image: %s\n' "$*" >&2; }

# What the agent and `headgate init` call, and what python needs; no shell tools beyond Debian's essential ones.
runtime=python3,python3-nftables,nftables,iptables,ca-certificates,netbase,usr-is-merged
# Nobody logs in, no file system is checked, nothing is configured any more.
useless=(perl-base login sysvinit-utils)

# root TAR PACKAGES [HOOK…]: Debian's own keys, suites and mirrors, as this machine has them.
root() {
    local tar=$1 packages=$2 hook hooks=()
    shift 2
    for hook; do hooks+=("--customize-hook=$hook"); done
    mmdebstrap --quiet --format=tar --mode=root --variant=essential --include="$packages" --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        "${hooks[@]}" bookworm "$tar.new" >"$out/mmdebstrap.log" 2>&1 || { tail -n 20 "$out/mmdebstrap.log" >&2; exit 1; }
    mv "$tar.new" "$tar"
}

# current TAR WORDS…: whether that root was made of these words; the lists of Debian change, a root is a day's.
current() { [[ -e $1 && $(cat "$1.of" 2>/dev/null) == "${*:2}" ]]; }

make_root() {
    local tar=$out/$1.tar packages=$2
    shift 2
    local of="$packages $* $(date -u +%F) ${SNAPSHOT:-}"
    current "$tar" "$of" && return
    say "Debian root: $packages"
    root "$tar" "$packages" "$@"
    printf '%s\n' "$of" >"$tar.of"
}

# Nor is anything fetched from this machine's mirrors, or run as somebody else than who starts it.
bare='rm -rf "$1"/etc/apt/sources.list* "$1"/var/cache/* "$1"/var/log/* "$1"/usr/lib/x86_64-linux-gnu/gconv \
    "$1"/usr/lib/python3*/test "$1"/usr/lib/python3*/ensurepip "$1"/usr/lib/python3*/pydoc_data; find "$1" -xdev -type f -perm /6000 -exec chmod ug-s {} +'
purge="chroot \"\$1\" dpkg --purge --force-depends --force-remove-essential ${useless[*]}"

make_root builder python3,python3-venv,gcc,libc6-dev,usr-is-merged
make_root runtime "$runtime" "$purge" "$bare"
if [[ $target == bcc ]]; then
    make_root runtime-bcc "$runtime,python3-bpfcc" "$purge" "$bare"
    # A layer upon the other image's: what is not there, or not the same.
    /usr/bin/python3 tools/tar_difference.py "$out/runtime.tar" "$out/runtime-bcc.tar" "$out/bcc.tar"
fi

say "wheels of requirements/runtime.lock"
rm -rf "$out/wheels" && mkdir "$out/wheels"
/usr/bin/python3 -m venv "$out/venv"
"$out/venv/bin/python" -m pip download --quiet --no-input --disable-pip-version-check --only-binary :all: --require-hashes \
    -r requirements/runtime.lock -d "$out/wheels"

say "daemonset/Dockerfile, target $target"
storage=(--root "$PWD/$out/storage" --runroot "$PWD/$out/run" --storage-driver vfs)
name=headgate:$version$tag
buildah "${storage[@]}" build --quiet --isolation chroot --format docker --timestamp "$SOURCE_DATE_EPOCH" \
    --layers=false --build-arg VERSION="$version" --target "$target" --ignorefile daemonset/Dockerfile.ignore \
    -f daemonset/Dockerfile -t "$name" . >"$out/id"
rm -f "$out/headgate-$version$tag.tar"
buildah "${storage[@]}" push --quiet "$name" "docker-archive:$out/headgate-$version$tag.tar:$name"

say "what it holds"
if [[ ! -e $out/tools/.of || $(cat "$out/tools/.of") != $(sha256sum <requirements/image.lock) ]]; then
    /usr/bin/python3 -m venv --clear "$out/tools"
    "$out/tools/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --require-hashes -r requirements/image.lock
    sha256sum <requirements/image.lock >"$out/tools/.of"
fi
sbom=$out/headgate-$version$tag
root=$out/runtime$tag.tar
"$out/tools/bin/debsbom" generate --root "$root" --sbom-type cdx --with-licenses --out "$sbom.debian" \
    --timestamp "$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)" >>"$out/sbom.log" 2>&1
# Of the venv alone: with the distribution's packages this machine's would be told.
rm -rf "$out/venv"
layer=$(buildah "${storage[@]}" from "$name")
trap 'buildah "${storage[@]}" rm "$layer" >/dev/null' EXIT
cp -a "$(buildah "${storage[@]}" mount "$layer")/opt/headgate" "$out/venv"
sed -i 's/^include-system-site-packages = true/include-system-site-packages = false/' "$out/venv/pyvenv.cfg"
"$out/tools/bin/cyclonedx-py" environment --output-reproducible --of JSON -o "$sbom.python.cdx.json" "$out/venv/bin/python" \
    >>"$out/sbom.log" 2>&1
rm -rf "$out/venv"
stat -c 'image: %n, %s bytes' "$out/headgate-$version$tag.tar" "$sbom.debian.cdx.json" "$sbom.python.cdx.json"
