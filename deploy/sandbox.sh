#!/bin/sh
# A program in an image's files as a container would have it, where nothing else starts containers: namespaces of its own
# for mounts and processes, in which it is the first one; a root that can't be written; /tmp and /dev/shm in memory; no
# new privileges. The network is the machine's, and nothing limits memory and processors. Needs root.
#
#   unshare --mount --pid --ipc --uts --fork --kill-child sandbox.sh ROOT UID:GID MOUNT... -- COMMAND...
#
# ROOT is a mounted image. A MOUNT is SOURCE:TARGET:ro or SOURCE:TARGET:rw.
set -eu
root=$1 user=$2
shift 2

mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,nodev,mode=1777,size=512m tmpfs "$root/tmp"
mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
for device in null zero full random urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=64m tmpfs "$root/dev/shm" # as much as Docker gives
ln -s /proc/self/fd "$root/dev/fd"

while [ "$1" != -- ]; do
    source=${1%%:*} rest=${1#*:}
    target=$root${rest%:*}
    mkdir -p "$target"
    mount --bind "$source" "$target"
    [ "${rest##*:}" = rw ] || mount -o remount,bind,ro "$target"
    shift
done
shift
mount -o remount,bind,ro "$root"

exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" "$@"
