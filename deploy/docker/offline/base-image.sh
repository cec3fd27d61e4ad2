#!/usr/bin/env bash
# base-image.sh [IMAGE]: make the base image (debian:bookworm-slim) on this machine where no image registry
# answers, from this machine's own Debian mirror. FORCE=1 makes it anew; DEBIAN_MIRROR=<URI> names the mirror.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin
image=${1:-${BASE_IMAGE:-debian:bookworm-slim}}

die() { echo "base-image: $*" >&2; exit 1; }
quietly() { "$@" </dev/null >"$tmp/log" 2>&1 || { tail -n 20 "$tmp/log" >&2; die "failed: $*"; }; }
timeout 10 docker info >/dev/null 2>&1 || die "no docker engine answers; run deploy/docker/install-engine.sh"
if [[ ${FORCE:-0} != 1 ]] && docker image inspect "$image" >/dev/null 2>&1; then
  echo "$image exists; FORCE=1 makes it anew"
  exit 0
fi
[[ $EUID -eq 0 ]] || die "needs root, because debootstrap does"
command -v debootstrap >/dev/null \
  || die "debootstrap is missing; run deploy/docker/install-engine.sh or: apt-get install debootstrap"

sources=$("$here/debian-mirror.sh")
mirror=$(awk '$2 == "bookworm" { print $1 }' <<<"$sources")
tmp=$(mktemp -d)
root=$tmp/root
cleanup() {
  # debootstrap cannot unmount what it mounted when it is killed
  umount -l "$root/proc" "$root/sys" 2>/dev/null || true
  rm -rf --one-file-system "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$tmp" # apt's own user has to get in

# Put there before anything is installed: dpkg honours it from the first package on, and so do later builds.
mkdir -p "$root"/etc/{dpkg/dpkg.cfg.d,apt/apt.conf.d} "$root"/usr/{sbin,local/share/ca-certificates}
cat >"$root/etc/dpkg/dpkg.cfg.d/docker" <<'EOF'
force-unsafe-io
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
EOF

echo "debootstrap bookworm from $mirror"
quietly timeout --foreground -k 10 "${BOOTSTRAP_TIMEOUT_SECONDS:-600}" \
  debootstrap --force-check-gpg --variant=minbase --include=ca-certificates bookworm "$root" "$mirror"

echo "apt sources, this machine's own CA certificates, clean-up"
sed 's/^/deb /; s/$/ main/' <<<"$sources" >"$root/etc/apt/sources.list"
cat >"$root/etc/apt/apt.conf.d/docker-clean" <<'EOF'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
EOF
# A mirror kept at a past date is expired for apt unless it is told as this machine's apt is.
apt-config dump | grep -E '^Acquire::Check-(Date|Valid-Until) ' >"$root/etc/apt/apt.conf.d/host-dates" || true
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no services started by package scripts
chmod 755 "$root/usr/sbin/policy-rc.d"
find /usr/local/share/ca-certificates -name '*.crt' -exec cp -L {} "$root/usr/local/share/ca-certificates/" \; 2>/dev/null || true
quietly chroot "$root" update-ca-certificates
# debootstrap knows one suite only; the security fixes come from the others
quietly timeout --foreground -k 10 300 chroot "$root" sh -c 'apt-get update && apt-get upgrade -y'
find "$root/usr/share/doc" ! -type d ! -name copyright -delete
for dir in usr/share/{man,info,lintian,locale} var/{log,cache/apt,lib/apt/lists}; do
  find "$root/$dir" -mindepth 1 ! -type d -delete 2>/dev/null || true
done
find "$root"/usr/share/{doc,lintian,locale} -mindepth 1 -type d -empty -delete
rm -f "$root"/etc/{resolv.conf,hostname} "$root"/var/{lib/dpkg,cache/debconf}/*-old "$root/var/cache/ldconfig/aux-cache"

echo "import as $image"
tar -C "$root" --numeric-owner --one-file-system -c . | docker import --message "debootstrap bookworm, made on this machine" \
  --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' --change 'CMD ["bash"]' - "$image" >/dev/null
echo "$image: $(($(docker image inspect --format '{{.Size}}' "$image") / 1000000)) MB in ${SECONDS}s"
