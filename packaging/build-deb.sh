#!/bin/sh
# Builds the Debian package into target/debian. Needs what the project needs, and cargo-deb
# (`cargo install --locked cargo-deb`). A package runs where glibc is no older than on this machine.
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
cargo deb -p citybrain --no-build "$@"
