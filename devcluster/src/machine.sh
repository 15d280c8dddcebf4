# Makes a machine of the namespaces that `unshare` has just created, and keeps it until standard input closes.
#
# Arguments: host name, a directory to mount the root on, IPv6 address, name server, then pairs of a file or
# directory of the host and its path on the machine. Files are read-only, but for those that end in .ext4: each is a
# file system, and mounted.
#
# Standard output: this process's id, and "ready" at the end. Between the two a line is awaited on standard
# input: by then the network interface must be here.
set -eu
hostname=$1 root=$2 address=$3 name_server=$4
shift 4

# /proc is still the host's, so it tells the id by which the host knows this process.
read -r pid _ </proc/self/stat
echo "$pid"
read -r _

ip link set lo up
ip link set eth0 up
ip address add "$address/128" dev eth0 nodad
ip -6 route add default dev eth0

mount -t tmpfs -o mode=755 machine "$root"
cd "$root"
mkdir dev etc proc root run tmp var
chmod 1777 tmp

# The programs are the host's. On most distributions all but /usr are links into it.
for directory in bin lib lib32 lib64 libx32 sbin usr; do
    if [ -L "/$directory" ]; then
        cp -P "/$directory" .
    elif [ -d "/$directory" ]; then
        mkdir "$directory"
        mount --bind -o ro "/$directory" "$directory"
    fi
done
mount -t tmpfs -o mode=755 programs usr/local/bin

mount -t proc proc proc
mkdir -p sys/fs/fuse/connections
mount -t fusectl connections sys/fs/fuse/connections
echo "$hostname" >proc/sys/kernel/hostname
for device in fuse full null random tty urandom zero; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir -m 1777 dev/shm

# Where the host's libraries and programs are. Neither is on every distribution.
cp -a /etc/ld.so.cache /etc/alternatives etc/ 2>/dev/null || true
# fusermount would keep a list of its own where this is no link.
ln -s /proc/self/mounts etc/mtab
printf '%s localhost\n' 127.0.0.1 ::1 >etc/hosts
echo "$address $hostname" >>etc/hosts
echo "nameserver $name_server" >etc/resolv.conf
echo "hosts: files dns" >etc/nsswitch.conf
echo "root:x:0:0::/root:/bin/sh" >etc/passwd
echo "root:x:0:" >etc/group

while [ $# -gt 0 ]; do
    mkdir -p ".${2%/*}"
    if [ -d "$1" ]; then
        mkdir -p ".$2"
        mount --bind "$1" ".$2"
    elif [ "$1" != "${1%.ext4}" ]; then
        mkdir -p ".$2"
        mount -o loop "$1" ".$2"
    else
        touch ".$2"
        mount --bind -o ro "$1" ".$2"
    fi
    shift 2
done

pivot_root . .
umount -l .
echo ready
cat >/dev/null

# This is process 1: when it ends, the kernel ends all others, and waits for them. Now and then it would wait for ever:
# LiteFS that is killed in the middle of a write waits for a page that only LiteFS could write. What is left of its
# mount is therefore given up, once nothing runs that could notice.
kill -s KILL -1 2>/dev/null || true
while read -r mount; do
    case $mount in
    *" - fuse "* | *" - fuse."*)
        device=${mount#* * } device=${device%% *}
        echo 1 >"/sys/fs/fuse/connections/${device#*:}/abort" || true
        ;;
    esac
done </proc/self/mountinfo
