#!/bin/sh
# Runs inside the throw-away layer, as root: turns the modules that DKMS compiled into a package.
# Writes /kldload/zfs-modules.deb, its Packages index and the kernel's release to /kldload/.
set -eu

kernel=$(ls /lib/modules)
case $kernel in
*[!A-Za-z0-9.+~_-]*) echo "more than one kernel in the layer: $kernel" >&2; exit 1 ;;
esac
# Headers and image come from one source package and share its version.
kernel_version=$(dpkg-query -W -f '${Version}' "linux-headers-$kernel")
zfs_version=$(dpkg-query -W -f '${Version}' zfs-dkms)

package=/kldload/package
modules=$package/usr/lib/modules/$kernel/updates
mkdir -p "$modules" "$package/DEBIAN"
compiled=/lib/modules/$kernel/updates/dkms
# DKMS compresses where the kernel's own modules are compressed.
if [ -e "$compiled/zfs.ko.xz" ]; then
    xz -d "$compiled"/*.ko.xz
fi
for module in "$compiled"/*.ko; do
    name=$(basename "$module" .ko)
    # The kernel's own reader wants CRC32 and a small dictionary (Documentation/staging/xz.rst).
    cp "$module" "$modules/$name.ko"
    strip --strip-debug "$modules/$name.ko"
    xz --check=crc32 --lzma2=dict=1MiB "$modules/$name.ko"
done
cat > "$package/DEBIAN/control" <<EOF
Package: zfs-modules-$kernel
Version: $zfs_version
Architecture: $(dpkg --print-architecture)
Maintainer: kldload <root@localhost>
Section: kernel
Priority: optional
Depends: linux-image-$kernel (= $kernel_version), kmod
Provides: zfs-modules
Description: OpenZFS modules for Linux $kernel
 Compiled from zfs-dkms $zfs_version against the headers of this kernel.
EOF
printf '#!/bin/sh\nset -e\ndepmod %s\n' "$kernel" > "$package/DEBIAN/postinst"
chmod 755 "$package/DEBIAN/postinst"
dpkg-deb --root-owner-group -Zxz --build "$package" /kldload/zfs-modules.deb
(cd /kldload && dpkg-scanpackages --multiversion . > Packages)
printf '%s\n' "$kernel" > /kldload/kernel
