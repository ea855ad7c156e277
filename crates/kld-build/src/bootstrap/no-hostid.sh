#!/bin/sh
# An initramfs hook, only there while the image is made: the host id is an identity, and an initramfs that
# holds one gives it to every machine made from the image.
case ${1:-} in
prereqs) echo zfs; exit 0 ;;
esac
rm -f "${DESTDIR}/etc/hostid"
