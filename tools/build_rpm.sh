#!/usr/bin/env bash
# Builds an rpm package out of what is built already: tools/build_rpm.sh PROGRAM MADE VERSION OUT
#
# PROGRAM is the binary, MADE the directory that `cargo run --example package-files -- MADE` filled, OUT the package. What
# goes where stands in packaging/files. cargo-generate-rpm makes the same of Cargo.toml.
set -euo pipefail
[ $# -eq 4 ] || {
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
program=$1 made=$2 version=$3 out=$4
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
"$here/tools/package_tree.sh" "$program" "$made" "$work/root"
{
    cat <<SPEC
%global debug_package %{nil}
%define _build_id_links none
%define __os_install_post %{nil}
%define _binary_payload w1.gzdio
Name: hot-backup
Version: $version
Release: 1
Summary: Two Linux machines that keep one database
License: Apache-2.0 OR MIT
Requires(post): shadow-utils
%description
A primary serves users by the Redis protocol and NBD, and sends each change to a standby, which takes over when an
operator says so.
%install
cp -a $work/root/. %{buildroot}/
%post
$(cat "$here/packaging/scripts/postinst")
%preun
$(cat "$here/packaging/scripts/prerm")
%postun
$(cat "$here/packaging/scripts/postrm")
%files
%defattr(-,root,root,-)
SPEC
    (cd "$work/root" && find . -type f -printf '/%P\n' | sort)
} >"$work/hot-backup.spec"
rpmbuild --quiet -bb --define "_topdir $work/top" --define "_rpmdir $work/rpms" "$work/hot-backup.spec"
cp "$work"/rpms/*/*.rpm "$out"
