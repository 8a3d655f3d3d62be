#!/bin/sh
# The only program of the initrd: open the verified root file system and hand over to it.
#
# What to trust comes from the kernel command line, which firmware checked and measured as a
# part of the signed kernel image:
#
#   catena.root=ROOT_HASH,SALT,DATA_BLOCKS
#
# Disks are only places to look for bytes: the kernel checks every block against ROOT_HASH.
# Whatever goes wrong ends in a power-off. There is no shell to fall into.

PATH=/usr/bin:/usr/sbin
export PATH

fail() {
    trap - EXIT
    echo "catena: verity: $*; powering off" >/dev/console
    poweroff -f
    while :; do sleep 60; done
}

trap 'fail "the initrd ended unexpectedly"' EXIT

only_hex() {
    case "$1" in
        '' | *[!0-9a-f]*) return 1 ;;
    esac
    return 0
}

# On disk, GUIDs have their first three fields in little-endian byte order.
guid_on_disk() {
    echo "$1" | sed -E 's/^(..)(..)(..)(..)(..)(..)(..)(..)(.*)$/\4\3\2\1\6\5\8\7\9/'
}

# Print the device of the partition whose unique GUID (32 hex digits) is $1. UEFI 2.10, 5.3.3:
# entry N of the table lies 128 * (N - 1) bytes into LBA 2, its unique GUID 16 bytes later.
find_partition() {
    wanted=$(guid_on_disk "$1")
    for disk in /sys/block/vd* /sys/block/sd* /sys/block/nvme*; do
        for partition in "$disk/${disk##*/}"*; do
            [ -r "$partition/partition" ] || continue
            read -r number <"$partition/partition"
            found=$(dd if="/dev/${disk##*/}" bs=16 count=1 skip=$((57 + 8 * number)) 2>/dev/null |
                hexdump -v -e '1/1 "%02x"')
            if [ "$found" = "$wanted" ]; then
                echo "/dev/${partition##*/}"
                return 0
            fi
        done
    done
    return 1
}

wait_for_partition() {
    attempts=0
    until find_partition "$1"; do
        attempts=$((attempts + 1))
        [ "$attempts" -lt 50 ] || return 1
        sleep 0.2
    done
}

mount -t proc -o nosuid,nodev,noexec proc /proc || fail "cannot mount /proc"
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys || fail "cannot mount /sys"
mount -t devtmpfs -o nosuid,noexec devtmpfs /dev || fail "cannot mount /dev"

while read -r module; do
    insmod "/modules/$module" || fail "cannot load kernel module $module"
done </modules/order

root=
for word in $(cat /proc/cmdline); do
    case "$word" in
        catena.root=*)
            [ -z "$root" ] || fail "catena.root is given twice"
            root=${word#catena.root=}
            ;;
    esac
done
[ -n "$root" ] || fail "the command line names no catena.root"

root_hash=${root%%,*}
rest=${root#*,}
salt=${rest%%,*}
blocks=${rest#*,}
only_hex "$root_hash" && [ ${#root_hash} -eq 64 ] || fail "the root hash is malformed"
only_hex "$salt" && [ ${#salt} -eq 64 ] || fail "the salt is malformed"
case "$blocks" in
    '' | *[!0-9]* | ?????????????*) fail "the block count is malformed" ;;
esac

# Discoverable Partitions Specification: the two halves of the root hash name the partitions.
data_id=$(echo "$root_hash" | cut -c 1-32)
hash_id=$(echo "$root_hash" | cut -c 33-64)
data_device=$(wait_for_partition "$data_id") || fail "no disk has the root partition of this release"
hash_device=$(wait_for_partition "$hash_id") || fail "no disk has the hash partition of this release"

# Table of the kernel's verity target (admin-guide/device-mapper/verity). The tree starts one
# block into its partition, behind a superblock that nobody reads.
table="0 $((blocks * 8)) verity 1 $data_device $hash_device 4096 4096 $blocks 1 sha256"
dmsetup create root --readonly --noudevsync --table \
    "$table $root_hash $salt 1 panic_on_corruption" || fail "cannot open the root file system"

# The only device-mapper device there is; without udev nobody gives it its name.
mount -t squashfs -o ro,nodev /dev/dm-0 /sysroot ||
    fail "the root file system does not match its root hash"

mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /sysroot/run || fail "cannot mount /run"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /sysroot/tmp || fail "cannot mount /tmp"
mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /sysroot/var || fail "cannot mount /var"

[ -L /sysroot/sbin/init ] || [ -x /sysroot/sbin/init ] || fail "the root file system has no /sbin/init"
for place in proc sys dev; do
    mount --move "/$place" "/sysroot/$place" || fail "cannot move /$place"
done

trap - EXIT
exec switch_root /sysroot /sbin/init
