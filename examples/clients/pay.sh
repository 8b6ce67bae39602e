#!/usr/bin/env bash
#
# Pays an order, once, however often it is run:  pay.sh ORDER AMOUNT TOKEN
# PAYONCE_URL and PAYONCE_API_KEY name the service and the merchant.
set -euo pipefail
order=${1-} amount=${2-} token=${3-}
# An order that is not set must not be paid as the order "".
if (($# != 3)) || [[ -z $order || -z $amount || -z $token || -z ${PAYONCE_API_KEY-} || ${PAYONCE_URL-} != http*://* ]]; then
  echo 'usage: PAYONCE_URL=http://… PAYONCE_API_KEY=sk_… pay.sh ORDER AMOUNT TOKEN, none of them empty' >&2
  exit 2
fi

# Derived from the order and not random, so that a second run, even after a crash, sends the same key and the same bytes.
key="order-$order"
request=$(printf '{"amount": "%s", "currency": "USD", "paymentMethod": {"type": "CARD", "token": "%s"}}' "$amount" "$token")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for attempt in {1..8}; do
  : >"$work/head" >"$work/body"
  # Longer than the service waits for its gateway (10 s).
  status=$(curl --silent --max-time 15 --dump-header "$work/head" --output "$work/body" --write-out '%{http_code}' \
    --config - "$PAYONCE_URL/v1/payments" --header "Idempotency-Key: $key" \
    --header 'Content-Type: application/json' --data "$request" \
    <<<"header = \"Authorization: Bearer $PAYONCE_API_KEY\"") || status=000
  retry=$(sed -n 's/.*"retry":"\([a-z-]*\)".*/\1/p' "$work/body")
  case $status:$retry in
    200:* | 201:*) cat "$work/body" && exit 0 ;;
    # No answer, not yet known, or told so: the same request with the same key, later.
    000:* | 202:* | *:same-key | 5??:*) ;;
    # Declined, not valid, or another request's key: sending it again changes nothing. `charged` says whether the key paid.
    *) cat "$work/body" >&2 && exit 1 ;;
  esac
  # As long as the service says; otherwise a growing, random pause, so that clients don't retry all at once.
  after=$(sed -n 's/^retry-after: *\([0-9]*\).*/\1/Ip' "$work/head")
  tenths=$((1 + RANDOM % (1 << attempt)))
  pause=${after:-$((tenths / 10)).$((tenths % 10))}
  echo "order $order: not known yet (status $status); trying again in $pause s" >&2
  sleep "$pause"
done
echo "order $order: the outcome is not known yet; run this again" >&2
exit 75
