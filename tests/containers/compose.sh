# The parts of scripts/test-containers that run docker-compose.yml.

run_compose() {
  fresh_project
  check a_first_start_serves_payments
  ((last_status == 0)) || return 0
  check the_image_says_who_it_is_and_whether_it_is_ready
  check nothing_runs_as_root_and_no_container_keeps_a_zombie_or_an_endless_log
  check the_doctor_finds_no_problem_and_names_the_example_secrets
  check the_clean_up_leaves_numbers_that_others_may_read
  check the_job_of_kubernetes_sets_the_database_up_from_the_image
  check a_changed_password_holds_after_the_next_up
  check a_start_that_failed_half_way_is_put_right_by_the_next_up
  compose_down
}

a_first_start_serves_payments() {
  local since=$SECONDS api_key
  compose up --detach --wait app cleanup
  seen "from nothing to ready: $((SECONDS - since)) s"
  api_key=$(new_merchant acme)
  echo "$api_key" >"$work/api-key"
  pays "$PAYONCE_PORT" "$api_key" first
  pays "$PAYONCE_PORT" "$api_key" first
  [[ $(sql 'select count(*) from payments') == 1 ]]
}

the_image_says_who_it_is_and_whether_it_is_ready() {
  local image=payonce-test/payonce app
  [[ $(docker inspect --format '{{.Config.User}}' $image) == 65532:65532 ]]
  [[ $(docker inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' $image) == 0.1.0 ]]
  [[ $(docker inspect --format '{{json .Config.Healthcheck.Test}}' $image) == '["CMD","payonce","ready"]' ]]
  app=$(container app)
  docker exec "$app" payonce ready
  # Its database is away: unhealthy.
  compose stop --timeout 20 db
  if docker exec "$app" payonce ready; then
    fail 'ready without a database'
  fi
  compose start db
  eventually 30 docker exec "$app" payonce ready
}

nothing_runs_as_root_and_no_container_keeps_a_zombie_or_an_endless_log() {
  local service id
  for service in db app cleanup; do
    id=$(container "$service")
    # An orphan, which the first process has to collect.
    docker exec "$id" sh -c '(sh -c "sleep 0.2; true" &) ; true'
  done
  sleep 1
  for service in db app cleanup; do
    id=$(container "$service")
    # Docker's own list of processes leaves zombies out.
    docker exec "$id" sh -c 'cat /proc/[0-9]*/status 2>/dev/null || true' >"$work/lines"
    grep -q '^State:' "$work/lines" || fail "$service has no process"
    if grep -E '^State:.*zombie|^Uid:[[:space:]]+0[[:space:]]' "$work/lines"; then
      fail "$service has a process of root, or a zombie"
    fi
    [[ $(docker inspect --format '{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config "max-size"}}' "$id") == 'local 10m' ]]
  done
}

the_doctor_finds_no_problem_and_names_the_example_secrets() {
  compose exec -T app payonce doctor --no-migrate >"$work/doctor" || fail "$(cat "$work/doctor")"
  grep -q '^warning  *example-secrets  *DATABASE_URL' "$work/doctor" || fail "$(cat "$work/doctor")"
  grep -q '^warning  *fingerprint-secret' "$work/doctor" || fail "$(cat "$work/doctor")"
  # Where money moves, the same values are problems.
  if compose exec -T -e PAYONCE_GATEWAY=stripe -e PAYONCE_STRIPE_SECRET_KEY=change-me app \
    payonce doctor --no-migrate --stripe-api-base http://127.0.0.1:1 >"$work/doctor"; then
    fail 'public secrets pass'
  fi
  grep -q '^problem  *example-secrets  *DATABASE_URL and PAYONCE_STRIPE_SECRET_KEY' "$work/doctor" || fail "$(cat "$work/doctor")"
}

the_clean_up_leaves_numbers_that_others_may_read() {
  local numbers
  eventually 90 compose exec -T cleanup test -s /var/lib/payonce/textfile/payonce.prom
  numbers=$(docker run --rm --user 65534:65534 --volume payonce-test_textfile:/textfile:ro payonce-test/payonce cat /textfile/payonce.prom)
  grep -q '^payonce_cleanup_last_success_timestamp_seconds [0-9]' <<<"$numbers"
}

# As deploy/kubernetes/base/migrate.yaml has it: the scripts out of the image, then psql under a user that no image knows, over TCP.
the_job_of_kubernetes_sets_the_database_up_from_the_image() {
  local confined=(docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges:true --user 65532:65532)
  docker volume create payonce-test_job >/dev/null
  docker run --rm --user 0 --volume payonce-test_job:/roles payonce-test/payonce chown 65532:65532 /roles
  "${confined[@]}" --volume payonce-test_job:/roles payonce-test/payonce \
    cp /usr/local/share/payonce/roles.sql /usr/local/share/payonce/roles.sh /roles/
  "${confined[@]}" --volume payonce-test_job:/roles --network payonce-test_default --env PGHOST=db --env PGUSER=postgres \
    --env PGPASSWORD=public-superuser-password --env PGDATABASE=another --env PAYONCE_OWNER_PASSWORD=public-owner-password \
    payonce-test/postgres sh /roles/roles.sh
  docker volume rm payonce-test_job >/dev/null
  "${confined[@]}" --network payonce-test_default payonce-test/payonce payonce migrate --database-url \
    postgres://payonce_owner:public-owner-password@db/another
}

a_changed_password_holds_after_the_next_up() {
  local api_key file
  api_key=$(cat "$work/api-key")
  for file in db owner service cleanup; do
    sed -i 's/public-\(superuser\|owner\|service\|cleanup\)-password/another-\1-password/' "$work/project/deploy/compose/$file.env"
  done
  compose up --detach --wait app cleanup
  pays "$PAYONCE_PORT" "$api_key" after-the-change
  for role in postgres:superuser payonce_owner:owner payonce_service:service payonce_cleanup:cleanup; do
    compose exec -T -e PGPASSWORD="another-${role#*:}-password" db psql -h 127.0.0.1 -U "${role%:*}" -d payonce -c 'select 1' >/dev/null
    if compose exec -T -e PGPASSWORD="public-${role#*:}-password" db psql -h 127.0.0.1 -U "${role%:*}" -d payonce -c 'select 1'; then
      fail "the old password of ${role%:*} still holds"
    fi
  done
}

a_start_that_failed_half_way_is_put_right_by_the_next_up() {
  local api_key
  fresh_project
  # The database is made and dies before it has roles; then the owner's password is wrong.
  compose up --detach --wait db
  compose kill db
  sed -i 's/public-owner-password/mistyped/' "$work/project/deploy/compose/owner.env"
  if compose up --detach --wait app; then
    fail 'a wrong password goes unnoticed'
  fi
  sql 'drop database payonce with (force)' || compose exec -T db psql -U postgres -c 'drop database payonce with (force)'
  sed -i 's/mistyped/public-owner-password/' "$work/project/deploy/compose/owner.env"
  compose up --detach --wait app
  api_key=$(new_merchant acme)
  pays "$PAYONCE_PORT" "$api_key" first
}
