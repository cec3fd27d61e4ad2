#!/usr/bin/env bash
# compose-plugins.sh FOLDER docker-compose|docker-buildx ...: puts Compose v2 and buildx there from Debian trixie.
# bookworm has no package of them. trixie's are Go binaries that run here too; apt gets folders of its own to fetch them
# with, so that trixie never becomes a source of this system.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
plugin_dir=$1
shift

mirror=$("$here/debian-mirror.sh" | sed -n '1s/ .*//p')
echo "fetching $* of Debian trixie"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp"/{lists,cache,state} "$plugin_dir"
: >"$tmp/state/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg target=Packages] $mirror trixie main" >"$tmp/list"
apt_trixie=(timeout --foreground 300 apt-get -q -o "Dir::Etc::sourcelist=$tmp/list" -o Dir::Etc::sourceparts=-
  -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
  -o "Dir::State=$tmp/state" -o "Dir::State::status=$tmp/state/status" -o "Dir::State::lists=$tmp/lists"
  -o "Dir::Cache=$tmp/cache" -o APT::Sandbox::User=root)
"${apt_trixie[@]}" update
(cd "$tmp" && "${apt_trixie[@]}" download "$@")
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done
for plugin in "$@"; do
  install -m 755 "$(find "$tmp/root" -path "*/cli-plugins/$plugin" -type f)" "$plugin_dir/$plugin"
done
