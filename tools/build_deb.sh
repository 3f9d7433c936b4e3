#!/usr/bin/env bash
# Builds a Debian package out of what is built already: tools/build_deb.sh PROGRAM MADE VERSION OUT
#
# PROGRAM is the binary, MADE the directory that `cargo run --example package-files -- MADE` filled, OUT the package. What
# goes where stands in packaging/files. cargo-deb makes the same of Cargo.toml.
set -euo pipefail
[ $# -eq 4 ] || {
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
program=$1 made=$2 version=$3 out=$4
here=$(cd "$(dirname "$0")/.." && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
"$here/tools/package_tree.sh" "$program" "$made" "$root"
# What the C library has to be, by what the program asks for.
libc=$(grep -ao 'GLIBC_2\.[0-9]*' "$root/usr/bin/hot-backup" | sed 's/GLIBC_//' | sort -uV | tail -1)
mkdir "$root/DEBIAN"
install -m 755 "$here"/packaging/scripts/* "$root/DEBIAN/"
cat >"$root/DEBIAN/control" <<CONTROL
Package: hot-backup
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: the hot-backup contributors <hot-backup@example.org>
Section: database
Priority: optional
Depends: libc6 (>= ${libc:-2.31}), libgcc-s1
Recommends: systemd
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Description: two Linux machines that keep one database
 A primary serves users by the Redis protocol and NBD, and sends each change to a standby, which takes over when an
 operator says so.
CONTROL
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group -Zxz -z1 --build "$root" "$out" >/dev/null
