# The parts of scripts/test-containers that run deploy/scaling: two nodes behind HAProxy.

run_scaling() {
  with_scaling=1
  fresh_project
  check two_nodes_start_behind_the_proxy
  ((last_status == 0)) || return 0
  check a_killed_node_costs_no_payment
  check the_commands_of_an_upgrade_cost_no_payment
  check the_proxy_writes_a_line_for_each_request_and_stops_in_order
  compose_down
  with_scaling=
}

two_nodes_start_behind_the_proxy() {
  local since=$SECONDS api_key
  compose up --detach --wait app app-b proxy
  seen "from nothing to two nodes behind a proxy: $((SECONDS - since)) s"
  api_key=$(new_merchant acme)
  echo "$api_key" >"$work/api-key"
  eventually 30 curl -sf "http://127.0.0.1:$PAYONCE_PROXY_PORT/readyz"
  pays "$PAYONCE_PROXY_PORT" "$api_key" first
}

more_payments_than() { (($(sql 'select count(*) from payments') > $1)); }

# Runs a command under 8 clients that try nothing again. No payment may be lost or made twice.
under_load() {
  local before after load paid
  before=$(sql 'select count(*) from payments')
  rm -f "$work/stop"
  python3 "$project/tests/containers/load.py" "http://127.0.0.1:$PAYONCE_PROXY_PORT" "$(cat "$work/api-key")" 8 "$work/stop" >"$work/load" 2>&1 &
  load=$!
  # There is load before anything happens, and after it.
  eventually 30 more_payments_than $((before + 50))
  "$@"
  after=$(sql 'select count(*) from payments')
  eventually 30 more_payments_than $((after + 50))
  touch "$work/stop"
  wait $load || fail "$(cat "$work/load")"
  seen "$(cat "$work/load")"
  paid=$(sed -n 's/.*"paid": \([0-9]*\).*/\1/p' "$work/load")
  [[ $(sql 'select count(*) from payments') == $((before + paid)) ]] || fail 'the books and the clients do not agree'
  [[ $(sql 'select count(*) from unsettled_keys') == 0 ]]
}

a_killed_node_costs_no_payment() { under_load kill_and_start_again; }

kill_and_start_again() {
  compose kill app
  sleep 5
  compose up --detach --no-deps --wait app
  # Until the proxy has seen both.
  sleep 3
  compose kill app-b
  sleep 5
  compose up --detach --no-deps --wait app-b
}

the_commands_of_an_upgrade_cost_no_payment() { under_load upgrade; }

# As docs/OPERATIONS.md has them, but for the first, which is `docker compose build` or `pull` there.
upgrade() {
  build_payonce payonce-test/payonce 0.1.1
  compose run --rm grant
  compose up --detach --no-deps --wait app
  sleep 6
  compose up --detach --no-deps --wait app-b
  # The migration, too, was the new version's.
  for service in migrate app app-b; do
    [[ $(docker inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$(container "$service")") == 0.1.1 ]]
  done
}

the_proxy_writes_a_line_for_each_request_and_stops_in_order() {
  local proxy slow since
  proxy=$(container proxy)
  # Not by a pipe, which `grep -q` would end early.
  docker logs "$proxy" >"$work/lines" 2>&1
  grep -q 'nodes/[ab] .* 201 .* "POST /v1/payments' "$work/lines" || fail "$(tail -n 3 "$work/lines")"
  docker exec "$(container app)" bash -c \
    'exec 3<>/dev/tcp/proxy/8405 && printf "GET /metrics HTTP/1.0\r\n\r\n" >&3 && cat <&3' >"$work/lines"
  grep -q '^haproxy_server_status{proxy="nodes",server="a",state="UP"} 1' "$work/lines" || fail "$(head -n 3 "$work/lines")"
  # An answer that is under way when the proxy is told to stop still arrives. /readyz without a database takes two seconds.
  docker pause "$(container db)"
  curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PAYONCE_PROXY_PORT/v1/payments/none" -H "Authorization: Bearer sk_none" \
    --max-time 20 >"$work/slow" &
  slow=$!
  sleep 0.5
  since=$SECONDS
  compose stop proxy
  seen "a stop with a request under way: $((SECONDS - since)) s"
  docker unpause "$(container db)"
  wait $slow || fail 'the answer that was under way is lost'
  grep -q '^[45]' "$work/slow"
}
