# The parts of scripts/test-containers that run deploy/systemd and deploy/crontab.example, on a machine in a container.

run_systemd() {
  machine=payonce-test-systemd
  if ! start_machine; then
    failed=$((failed + 1))
    echo 'FAIL  a machine with systemd starts'
    return
  fi
  check the_units_are_installed_and_the_service_serves
  ((last_status == 0)) || return 0
  check a_reload_without_a_certificate_ends_nothing
  check a_renewed_certificate_is_served_after_a_reload
  check a_database_that_is_away_at_the_start_is_waited_for
  check the_clean_ups_numbers_can_be_read_by_the_exporter
  check cron_cleans_up_with_a_url_of_any_characters
  check a_stop_is_clean
  docker rm -f $machine >/dev/null
}

start_machine() {
  docker rm -f $machine >/dev/null 2>&1 || true
  # Not --privileged, which asks for capabilities that this machine may not have itself.
  docker run --detach --name $machine --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --tmpfs /run --tmpfs /run/lock --tmpfs /tmp \
    --cgroupns host --volume /sys/fs/cgroup:/sys/fs/cgroup payonce-test/systemd >/dev/null || return 1
  local state
  for _ in {1..120}; do
    state=$(on systemctl is-system-running 2>/dev/null || true)
    if [[ $state == running || $state == degraded ]]; then
      return
    fi
    sleep 0.25
  done
  docker logs $machine | tail -n 20
  return 1
}

on() { docker exec -i $machine "$@"; }

# The lines of standard input, in a shell there that ends at the first failure.
script() { on bash -euo pipefail -s "$@"; }

database_up() {
  on systemd-run --quiet --unit test-postgresql --uid postgres --property KillSignal=SIGINT \
    /usr/lib/postgresql/bin/postgres -D /var/lib/postgresql/data -k /var/run/postgresql
  script <<'SH'
for _ in $(seq 300); do
  if pg_isready -q -h 127.0.0.1; then exit 0; fi
  sleep 0.1
done
exit 1
SH
}

database_down() { on systemctl stop test-postgresql; }

until_ready() {
  local scheme=${1:-http}
  for _ in {1..200}; do
    if on curl -skf -o /dev/null "$scheme://127.0.0.1:8080/readyz"; then
      return
    fi
    sleep 0.1
  done
  on journalctl --no-pager -n 20 -u payonce
  fail 'the service is not ready'
}

the_units_are_installed_and_the_service_serves() {
  local name
  docker cp "$work/programs/payonce/target/release/." $machine:/usr/local/bin/
  for name in payonce.service payonce-cleanup.service payonce-cleanup.timer; do
    docker cp "$project/deploy/systemd/$name" $machine:/etc/systemd/system/
  done
  on mkdir -p /etc/sysusers.d /etc/payonce /roles
  docker cp "$project/deploy/systemd/payonce.sysusers.conf" $machine:/etc/sysusers.d/payonce.conf
  docker cp "$project/deploy/roles.sql" $machine:/roles/
  docker cp "$project/deploy/roles.sh" $machine:/roles/
  script <<'SH'
chmod 0644 /etc/systemd/system/payonce* /etc/sysusers.d/payonce.conf
systemd-sysusers
install -d -o postgres -g postgres /var/run/postgresql
setpriv --reuid postgres --regid postgres --clear-groups initdb --username=postgres --auth=trust --no-sync >/dev/null
SH
  database_up
  script <<'SH'
export PGHOST=127.0.0.1 PGUSER=postgres
sh /roles/roles.sh
payonce migrate --database-url postgres://payonce_owner@127.0.0.1/payonce
sh /roles/roles.sh
umask 077
echo 'DATABASE_URL=postgres://payonce_service@127.0.0.1/payonce?sslmode=disable&application_name=payonce' >/etc/payonce/service.env
echo 'PAYONCE_FINGERPRINT_SECRET=a-secret-of-the-tests' >>/etc/payonce/service.env
echo 'DATABASE_URL=postgres://payonce_cleanup@127.0.0.1/payonce?sslmode=disable&application_name=cleanup' >/etc/payonce/cleanup.env
systemctl daemon-reload
systemctl enable --quiet --now payonce.service payonce-cleanup.timer
SH
  until_ready
  # It runs under a user of its own that is not root.
  [[ $(on systemctl show --property User --value payonce) == payonce ]]
  on bash -c 'test "$(stat -c %u /proc/$(systemctl show --property MainPID --value payonce))" != 0'
  seen "systemd-analyze security: $(on systemd-analyze security payonce.service | tail -n 1 | sed 's/.*: //')"
}

a_reload_without_a_certificate_ends_nothing() {
  local before
  before=$(on systemctl show --property MainPID --value payonce)
  on systemctl reload payonce
  sleep 1
  [[ $(on systemctl show --property MainPID --value payonce) == "$before" ]]
  until_ready
}

served_serial() { on bash -c 'openssl s_client -connect 127.0.0.1:8080 </dev/null 2>/dev/null | openssl x509 -noout -serial'; }

certificate() {
  script "$1" <<'SH'
install -d -m 0750 -g payonce-tls /etc/payonce/tls
cd /etc/payonce/tls
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -set_serial "$1" -subj /CN=pay.example.com \
  -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem 2>/dev/null
chgrp payonce-tls cert.pem key.pem
chmod 0640 cert.pem key.pem
SH
}

a_renewed_certificate_is_served_after_a_reload() {
  local before
  # Into a folder that only root may enter otherwise.
  on chmod 0711 /etc/payonce
  certificate 17
  on mkdir -p /etc/systemd/system/payonce.service.d
  docker cp "$project/deploy/systemd/payonce.service.d/tls.conf" $machine:/etc/systemd/system/payonce.service.d/
  script <<'SH'
systemctl daemon-reload
systemctl restart payonce
SH
  until_ready https
  [[ $(served_serial) == serial=11 ]]
  before=$(on systemctl show --property MainPID --value payonce)
  certificate 18
  on systemctl reload payonce
  for _ in {1..50}; do
    if [[ $(served_serial) == serial=12 ]]; then
      break
    fi
    sleep 0.1
  done
  [[ $(served_serial) == serial=12 ]]
  [[ $(on systemctl show --property MainPID --value payonce) == "$before" ]]
  script <<'SH'
rm -r /etc/systemd/system/payonce.service.d
systemctl daemon-reload
systemctl restart payonce
SH
  until_ready
}

restarted() { (($(on systemctl show --property NRestarts --value payonce) >= $1)); }

a_database_that_is_away_at_the_start_is_waited_for() {
  local since
  database_down
  on systemctl restart payonce
  # systemd's own limit is five starts in ten seconds.
  eventually 60 restarted 8
  database_up
  since=$SECONDS
  until_ready
  seen "ready $((SECONDS - since)) s after the database"
}

the_clean_ups_numbers_can_be_read_by_the_exporter() {
  on systemctl start payonce-cleanup.service
  on setpriv --reuid nobody --regid nogroup --clear-groups cat /var/lib/payonce-cleanup/payonce.prom >"$work/lines"
  grep -q '^payonce_cleanup_last_success_timestamp_seconds [0-9]' "$work/lines"
  [[ $(on systemctl is-active payonce-cleanup.timer) == active ]]
}

cron_cleans_up_with_a_url_of_any_characters() {
  # As in the example, but each minute.
  sed 's/^17 \*/* */' "$project/deploy/crontab.example" | on bash -c 'cat > /etc/cron.d/payonce; chmod 0644 /etc/cron.d/payonce'
  script <<'SH'
install -d -o payonce-cleanup -m 0755 /var/lib/prometheus/node-exporter
install -o payonce-cleanup -m 0400 /dev/null /etc/payonce/cleanup.url
echo "postgres://payonce_cleanup@127.0.0.1/payonce?sslmode=disable&application_name=a%20\$(id)'b" >/etc/payonce/cleanup.url
systemctl restart cron
for _ in $(seq 700); do
  if test -s /var/lib/prometheus/node-exporter/payonce_cleanup.prom; then exit 0; fi
  sleep 0.1
done
journalctl --no-pager -n 20 -t payonce-cleanup -u cron
exit 1
SH
}

a_stop_is_clean() {
  on systemctl stop payonce
  [[ $(on systemctl show --property Result --value payonce) == success ]]
  on journalctl --no-pager -u payonce -n 5 >"$work/lines"
  grep -q '"stopped"' "$work/lines" || fail "$(cat "$work/lines")"
}
