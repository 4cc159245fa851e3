#!/bin/sh
# Builds the Debian package into target/debian. Needs what the project needs, and cargo-deb
# (`cargo install --locked cargo-deb`). A package runs where glibc is no older than on this machine.
# Whoever builds it is its maintainer, by name and address as everywhere in Debian:
#
#     DEBFULLNAME='City of Chengdu' DEBEMAIL=citybrain@chengdu.example packaging/build-deb.sh
set -eu
cd "$(dirname "$0")/.."

cargo build --release --locked -p citybrain
bin=target/release/citybrain
rm -rf target/man target/completions
"$bin" man target/man
mkdir -p target/completions
for shell in bash zsh fish; do
    "$bin" completions "$shell" >"target/completions/citybrain.$shell"
done
gzip -9n target/man/*.1
gzip -9nc CHANGELOG.md >target/changelog.gz
maintainer="${DEBFULLNAME:-The citybrain developers} <${DEBEMAIL:-$(id -un)@$(hostname -f)}>"
sed "s/^ -- .*>  / -- $maintainer  /" packaging/changelog >target/changelog.debian
cargo deb -p citybrain --no-build --maintainer "$maintainer" "$@"
