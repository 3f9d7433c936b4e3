#!/usr/bin/env bash
# Lays out what a package installs: tools/package_tree.sh PROGRAM MADE ROOT
#
# PROGRAM is the binary, MADE the directory that `cargo run --example package-files -- MADE` filled, ROOT a directory that
# becomes the root of the package. What goes where stands in packaging/files.
set -euo pipefail
[ $# -eq 3 ] || {
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
program=$1 made=$2 root=$3
here=$(cd "$(dirname "$0")/.." && pwd)
while read -r from to mode; do
    case $from in
        target/release/hot-backup) from=$program ;;
        target/package/*) from=$made/${from#target/package/} ;;
        *) from=$here/$from ;;
    esac
    case $to in
        */)
            # A pattern, into a directory.
            for file in $from; do
                install -D -m "$mode" "$file" "$root/$to$(basename "$file")"
            done
            ;;
        *) install -D -m "$mode" "$from" "$root/$to" ;;
    esac
done < <(grep -v '^#' "$here/packaging/files")
gzip -9n "$root"/usr/share/man/man1/*
strip --strip-unneeded "$root/usr/bin/hot-backup" 2>/dev/null || true
