#!/usr/bin/env bash
# Where this machine gets Debian bookworm from: one "URI SUITE" per line, bookworm itself first.
# apt is asked instead of its files, so that both of their formats, comments and disabled entries
# are read as apt reads them. DEBIAN_MIRROR=<URI> takes the place of apt's configuration.
set -euo pipefail

candidates() {
  if [[ -n ${DEBIAN_MIRROR:-} ]]; then
    local mirror=${DEBIAN_MIRROR%/}
    printf '%s\n' "$mirror bookworm" "$mirror bookworm-updates" "$mirror-security bookworm-security"
    return
  fi
  local uri suite
  apt-get update --print-uris | sed -nE "s#^'(.+)/dists/(bookworm(-updates|-security)?)/InRelease'.*#\1 \2#p" \
    | LC_ALL=C sort -u -k2,2 -k1,1 | while read -r uri suite; do
      # Debian's cloud images name a file that lists mirrors; its first one is what apt prefers.
      [[ $uri != mirror+file:* ]] || uri=$(sed -nE '/^https?:/{s/[[:space:]].*//;s#/$##;p;q}' "${uri#mirror+file:}")
      echo "$uri $suite"
    done
}

# Third-party repositories also call their suite "bookworm"; only Debian's own says so in its Release.
serves_debian() {
  timeout 60 /usr/lib/apt/apt-helper -o APT::Sandbox::User=root -o Acquire::Retries=1 \
    download-file "$1/dists/$2/Release" "$scratch/Release" >/dev/null 2>&1 \
    && grep -qx 'Origin: Debian' "$scratch/Release"
}

command -v apt-get >/dev/null || { echo "debian-mirror: apt-get not found; this needs a Debian-like machine" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
seen=' '
while read -r uri suite; do
  [[ $uri == http* && ! $uri =~ /[0-9]{8}T[0-9]{6}Z && $seen != *" $suite "* ]] || continue # dated = snapshot
  rm -f "$scratch/Release"
  serves_debian "$uri" "$suite" || continue
  seen+="$suite "
  echo "$uri $suite"
done < <(candidates)

if [[ $seen != *' bookworm '* ]]; then
  echo "debian-mirror: ${DEBIAN_MIRROR:-no mirror in the apt configuration} serves Debian bookworm (or it did not answer);" >&2
  echo "  name one: DEBIAN_MIRROR=http://<mirror>/debian" >&2
  exit 1
fi
