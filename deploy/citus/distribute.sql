-- Distributes payonce's tables by merchant, on Citus. On the coordinator, in payonce's database, as a superuser, after the
-- workers were added (docs/SCALING.md) and after `payonce migrate`, before the first payment or with the service stopped:
--
--   psql -v ON_ERROR_STOP=1 -f deploy/citus/distribute.sql "$COORDINATOR_URL"
--
-- All rows of a merchant lie on one node, so that each payment's transaction is that node's alone. sqlx's own table of
-- migrations stays on the coordinator.

begin;

-- A copy on every node. They are small, seldom written, and a request names an API key and no merchant: distributed, each
-- look-up would ask every node.
select create_reference_table('merchants');
select create_reference_table('api_keys');
select create_reference_table('fingerprint_secrets');
-- The console's, which no payment waits for.
select create_reference_table('operator_actions');
select create_reference_table('refused_reuses');
select create_reference_table('traffic_minutes');

select create_distributed_table('idempotency_keys', 'merchant_id', colocate_with => 'none');
select create_distributed_table('unsettled_keys', 'merchant_id', colocate_with => 'idempotency_keys');
select create_distributed_table('payments', 'merchant_id', colocate_with => 'idempotency_keys');
select create_distributed_table('refunds', 'merchant_id', colocate_with => 'idempotency_keys');

commit;
