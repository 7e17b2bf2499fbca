#!/bin/sh
# Builds target/debian/wspulse_*.deb with `cargo deb` (cargo install cargo-deb). From the root of the
# tree:
#
#   sh deploy/deb.sh [--target aarch64-unknown-linux-gnu]
#
# MAINTAINER="Name <address>" replaces the maintainer in Cargo.toml. The generated files are in
# target/deb; [package.metadata.deb] in Cargo.toml places them.
set -eu

generated=target/deb
rm -rf "$generated"
mkdir -p "$generated"

cargo build --release --locked --bin wspulse "$@"
for page in man bash zsh fish; do
    cargo run --quiet --locked --example manual "$page" > "$generated/manual.$page"
done
sh deploy/third-party.sh "$@" > "$generated/THIRD-PARTY"
gzip -9n "$generated/THIRD-PARTY"
sh deploy/sbom.sh "$@" > "$generated/sbom.cdx.json"
# /usr/local is for what an administrator installs.
sed 's,/usr/local/bin/,/usr/bin/,' deploy/systemd/wspulse.service > "$generated/wspulse.service"

cargo deb --no-build --locked ${MAINTAINER:+--maintainer "$MAINTAINER"} "$@"
