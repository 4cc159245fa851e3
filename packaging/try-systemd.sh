#!/bin/sh
# Boots a Debian of its own with systemd in a container, installs the package there, and looks whether the unit
# does what it says: ready by sd_notify, TLS key and users file within reach of the sandbox, restarted after
# kill -9 and by its watchdog, stopped in seconds, data left in place.
#
#     packaging/build-deb.sh && sudo packaging/try-systemd.sh [FOLDER]
#
# As root; needs `apt-get install debootstrap systemd-container openssl mosquitto-clients`. The Debian in FOLDER
# (default /var/tmp/citybrain-try) is made if it is not there, and stays; a second run is then short. Exit status 0:
# all was as it should be.
set -eu
cd "$(dirname "$0")/.."
root=${1:-/var/tmp/citybrain-try}
deb=$(ls -t target/debian/citybrain_*.deb 2>/dev/null | head -n 1)
[ -n "$deb" ] || { echo "there is no target/debian/citybrain_*.deb: packaging/build-deb.sh makes it" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "only root can boot a container" >&2; exit 2; }
mirror=${MIRROR:-http://deb.debian.org/debian}
unit=citybrain@try
etc=$root/etc/citybrain

say() { printf '%s\n' "-- $*"; }
fail() {
    printf '%s\n' "FAILED: $*" >&2
    in_it journalctl -u "$unit" -n 30 --no-pager -o short-precise >&2 || true
    exit 1
}
in_it() { nsenter --target "$init" --all -- "$@"; }
is() { in_it systemctl show -P "$1" "$unit"; }
# Until a command says yes, at most so many seconds.
within() {
    end=$(($(date +%s) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.2
    done
}

[ -x "$root/sbin/init" ] || debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$root" "$mirror"

say "boot"
log=$(mktemp)
systemd-nspawn --boot --directory="$root" --register=no --keep-unit --private-network --link-journal=no \
    --console=pipe </dev/null >"$log" 2>&1 &
nspawn=$!
init=
trap 'kill -s RTMIN+4 "$init" 2>/dev/null || kill "$nspawn" 2>/dev/null; wait "$nspawn" 2>/dev/null || true; rm -f "$log"' EXIT
up() { init=$(pgrep -P "$nspawn" | head -n 1) && [ -n "$init" ] && in_it systemctl is-active --quiet multi-user.target; }
within 60 up || { cat "$log" >&2; echo "the container does not boot" >&2; exit 1; }

say "install $deb"
# What an earlier run has left.
in_it sh -c "systemctl stop $unit; rm -rf /root/backup /etc/citybrain/* /run/systemd/system/citybrain@.service.d" 2>/dev/null || true
cp "$deb" "$root/root/citybrain.deb"
in_it dpkg --install /root/citybrain.deb
[ "$(in_it stat -c '%a %G' /etc/citybrain)" = "2750 citybrain" ] || fail "/etc/citybrain is not for the group citybrain"

say "configure as docs/deploying.md says"
in_it sh -c 'cp /usr/share/doc/citybrain/examples/holidays-*.csv /etc/citybrain/ &&
    sed -e "s|^data = .*|data = \"/var/lib/citybrain/try\"|" -e "s|^anonymous = true|anonymous = false|" \
        -e "s|^\[access\]|[access]\nusers_file = \"users\"|" /usr/share/doc/citybrain/examples/city.toml >/etc/citybrain/try.toml'
cat >>"$etc/try.toml" <<'TOML'

[[listener]]
listen = "127.0.0.1:8883"
protocol = "mqtts"
cert_file = "node.pem"
key_file = "node-key.pem"
TOML
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$etc/node-key.pem" -out "$etc/node.pem" 2>/dev/null
in_it sh -c 'chgrp citybrain /etc/citybrain/node-key.pem && chmod 640 /etc/citybrain/node-key.pem'
echo secret | in_it citybrain user add ann --file /etc/citybrain/users >/dev/null
[ "$(in_it stat -c '%a %G' /etc/citybrain/users)" = "640 citybrain" ] || fail "the users file is not for the group citybrain"
# As the unit, with a watchdog that this script has the patience for.
in_it sh -c 'mkdir -p /run/systemd/system/citybrain@.service.d &&
    printf "[Service]\nWatchdogSec=5s\n" >/run/systemd/system/citybrain@.service.d/try.conf && systemctl daemon-reload'

say "start: comes back once the node takes events"
in_it systemctl start "$unit" || fail "it does not start"
[ "$(is ActiveState)/$(is SubState)" = active/running ] || fail "it is $(is ActiveState)/$(is SubState)"
in_it citybrain status --data-dir /var/lib/citybrain/try >/dev/null || fail "it is not ready"
in_it citybrain doctor --data-dir /var/lib/citybrain/try || true

say "publish by TLS, as a user"
publish() {
    nsenter --target "$init" --net -- mosquitto_pub -h localhost -p 8883 --cafile "$etc/node.pem" -u ann -P secret -q 1 \
        -t in/lamp/7 -m "{\"specversion\":\"1.0\",\"id\":\"$1\",\"source\":\"/lamp/7\",\"type\":\"city.lamp.failed\"}"
}
there() { in_it citybrain show "$1" --data-dir /var/lib/citybrain/try; }
publish first || fail "nothing can be published"
there first >/dev/null || fail "the event is not there"

say "kill -9: started again, with what it had acknowledged"
pid=$(is MainPID)
in_it systemctl kill --kill-whom=main --signal=KILL "$unit"
again() { [ "$(is ActiveState)" = active ] && [ "$(is MainPID)" != "$pid" ] && [ "$(is MainPID)" != 0 ]; }
within 30 again || fail "it is not started again"
there first >/dev/null || fail "what was acknowledged is gone"

say "watchdog: fed while the node works, and the end of one that does not"
beat=$(is WatchdogTimestampMonotonic)
fed() { [ "$(is WatchdogTimestampMonotonic)" != "$beat" ]; }
within 10 fed || fail "nobody feeds the watchdog"
pid=$(is MainPID)
in_it systemctl kill --kill-whom=main --signal=STOP "$unit"
within 60 again || fail "a node that stands still is not started anew"
in_it journalctl -u "$unit" --no-pager -o cat | grep -q "Watchdog timeout" || fail "it was not the watchdog"
there first >/dev/null || fail "what was acknowledged is gone"

say "reload: the rules are read again"
in_it systemctl reload "$unit" || fail "it does not reload"
publish second || fail "nothing can be published after a reload"

say "stop: in seconds, in order"
began=$(date +%s)
in_it systemctl stop "$unit" || fail "it does not stop"
took=$(($(date +%s) - began))
[ "$took" -le 5 ] || fail "it took $took s to stop"
[ "$(is Result)" = success ] || fail "it ended with $(is Result)"

say "restore: a backup is put back, and the unit starts on it"
in_it citybrain store snapshot /var/lib/citybrain/try /root/backup >/dev/null || fail "no backup can be taken"
in_it citybrain store restore --yes /root/backup /var/lib/citybrain/try >/dev/null || fail "it cannot be put back"
[ -L "$root/var/lib/citybrain/try" ] || fail "the link to the data folder is gone"
in_it systemctl start "$unit" || fail "it does not start on a restored folder"
there first >/dev/null || fail "the restored event is not there"
in_it systemctl stop "$unit" || fail "it does not stop"

say "remove the package: config and data stay"
in_it dpkg --purge citybrain >/dev/null
[ -d "$root/var/lib/private/citybrain/try/log" ] || fail "the data is gone"
[ -s "$etc/try.toml" ] || fail "the config is gone"
say "all is as it should be"
