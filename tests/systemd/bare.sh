#!/bin/bash
# Process 1 of a bare Debian: becomes the systemd of ROOT, a directory made by mmdebstrap, which stays as it is.
# As init.sh, with files of its own instead of this machine's; what it does for safety is explained there.
set -euo pipefail
mount --make-rprivate /
if [ "$$" -ne 1 ] || grep -q ' shared:' /proc/self/mountinfo; then
  echo "bare.sh: these are not namespaces of our own, refusing to go on" >&2
  exit 1
fi
if [ "${1-}" != in-own-cgroup ]; then
  mount -t tmpfs -o mode=0755 scratch "$SCRATCH"
  mkdir "$SCRATCH"/{cgroup,upper,work,root}
  mount -t cgroup2 cgroup2 "$SCRATCH/cgroup"
  mkdir "$SCRATCH/cgroup/$CGROUP"
  echo 1 >"$SCRATCH/cgroup/$CGROUP/cgroup.procs"
  umount "$SCRATCH/cgroup"
  exec unshare --cgroup bash "$0" in-own-cgroup
fi
root=$SCRATCH/root
mount -t overlay -o "lowerdir=$ROOT,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" overlay "$root"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
# Read-only where the kernel is everybody's: systemd then leaves sysctl and udev alone.
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=0755 dev "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
ln -s /proc/self/fd "$root/dev/fd"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"  # PrivateDevices= wants one
mount -t tmpfs -o mode=0755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
ip link set lo up
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
  console-getty.service getty.target systemd-networkd.service systemd-resolved.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cd "$root"
mkdir -p old
pivot_root . old
umount --recursive --lazy /old
rmdir /old
mount --make-rshared /
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --show-status=no --log-target=console --log-level=notice
