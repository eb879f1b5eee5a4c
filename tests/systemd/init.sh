#!/bin/bash
# Process 1 of a private machine: gives it mounts of its own, then becomes systemd.
# boot.py starts it under unshare(1), in new namespaces: SCRATCH is an empty directory made for it, CGROUP a name
# nobody else uses, CHECKOUT the sources, SITE_PACKAGES and PYTHON_PREFIX the environment the tests run in.
set -euo pipefail

# Nothing below may travel back to the machine: systemd and its units write to /tmp, /run, /etc and /var, and
# clean up there. A mount still shared would let it, so look again rather than trust.
mount --make-rprivate /
if [ "$$" -ne 1 ] || grep -q ' shared:' /proc/self/mountinfo; then
  echo "init.sh: these are not namespaces of our own, refusing to go on" >&2
  exit 1
fi

# A control group of our own: two machines at the root of the one hierarchy would kill each other's units.
if [ "${1-}" != in-own-cgroup ]; then
  mount -t tmpfs -o mode=0755 scratch "$SCRATCH"
  mkdir "$SCRATCH"/{cgroup,etc,etc.work,var,var.work}
  mount -t cgroup2 cgroup2 "$SCRATCH/cgroup"
  mkdir "$SCRATCH/cgroup/$CGROUP"
  echo 1 >"$SCRATCH/cgroup/$CGROUP/cgroup.procs"
  umount "$SCRATCH/cgroup"
  exec unshare --cgroup bash "$0" in-own-cgroup
fi

# Before /tmp is covered, because SCRATCH may lie in it.
mount -t overlay -o "lowerdir=/etc,upperdir=$SCRATCH/etc,workdir=$SCRATCH/etc.work" overlay /etc
mount -t overlay -o "lowerdir=/var,upperdir=$SCRATCH/var,workdir=$SCRATCH/var.work" overlay /var

# An installation where the units expect one. Binds, and never the original paths: the checkout and its Python
# may lie in a home directory, which the units cannot see.
mount -t tmpfs -o mode=0755 opt /opt
prefix=/opt/connect-sidecar
site="$prefix/lib/$PYTHON_NAME/site-packages"
mkdir -p "$prefix/bin" "$site" /opt/python /opt/packages/{agent,certs,upstreams,datacenter}
home="$PYTHON_PREFIX/bin"
if [ "$PYTHON_PREFIX" != /usr ]; then
  mount --bind "$PYTHON_PREFIX" /opt/python
  mount -o remount,bind,ro /opt/python
  home=/opt/python/bin
fi
ln -s "$home/$PYTHON_NAME" "$prefix/bin/python"
printf 'home = %s\ninclude-system-site-packages = false\n' "$home" >"$prefix/pyvenv.cfg"
ln -s "$CHECKOUT/systemd" /opt/packages/systemd  # where the link in agent/deployment leads
mount -t overlay -o "lowerdir=/opt/packages:$SITE_PACKAGES" overlay "$site"
for package in agent certs upstreams datacenter; do
  mount --bind "$CHECKOUT/$package" "$site/$package"
  mount -o remount,bind,ro "$site/$package"
done
cat >"$prefix/bin/sidecar" <<SCRIPT
#!$prefix/bin/python
import sys
from agent.__main__ import main
sys.exit(main())
SCRIPT
chmod 0755 "$prefix/bin/sidecar"

# Of the distribution's units only some without effects outside (no sysctl, no udev, no tmpfiles), and none that
# a generator would derive from the machine.
mount -t tmpfs -o mode=0755 run /run
units=/run/systemd/system
mkdir -p "$units/sockets.target.wants" /run/no-generators
for unit in {basic,sysinit,sockets,timers,paths,slices,shutdown,umount,final}.target \
  {local-fs,network,network-online,multi-user}.target \
  systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
  cp -L "/usr/lib/systemd/system/$unit" "$units/"
done
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket "$units/sockets.target.wants/"
cp "$CHECKOUT"/systemd/*.{service,socket,target} "$units/"
mkdir -p /etc/systemd/{journald,system}.conf.d /etc/connect-sidecar
# A Python with a shared library of its own finds it by a path the units cannot see, and would take another's.
cat >/etc/systemd/system.conf.d/private.conf <<CONF
[Manager]
DefaultEnvironment=LD_LIBRARY_PATH=/opt/python/lib
CONF
cat >/etc/systemd/journald.conf.d/private.conf <<CONF
[Journal]
Storage=volatile
Audit=no
ReadKMsg=no
RateLimitBurst=0
CONF

mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=1777 shm /dev/shm
umount --recursive --lazy /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up

# Shared among ourselves, now that nobody else is: credentials are mounted in a child's namespace and have to
# come back here. In a container systemd leaves this to whoever made the container.
mount --make-rshared /

exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  SYSTEMD_UNIT_PATH="$units" SYSTEMD_GENERATOR_PATH=/run/no-generators \
  SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/no-generators \
  /lib/systemd/systemd --system --unit=basic.target --show-status=no --log-target=console --log-level=notice
