-- Distributes payonce's tables by merchant, on Citus. Run it on the coordinator, in payonce's database, as a superuser: after the
-- workers were added (docs/SCALING.md) and after `payonce migrate`, before the first payment or with the service stopped.
--
--   psql -v ON_ERROR_STOP=1 -f deploy/citus/distribute.sql      # PGHOST, PGUSER, PGDATABASE and so on name the database
--
-- All rows of a merchant are on one node, so each payment's transaction is that node's alone. Later migrations need no further
-- step, unless one adds a table.

begin;

-- A copy on every node. These tables are small and seldom written. A request names an API key and no merchant: in a distributed table,
-- each look-up would ask every node. With sqlx's table of migrations on every node, the service can be connected to any of them.
select create_reference_table('merchants');
select create_reference_table('api_keys');
select create_reference_table('fingerprint_secrets');
select create_reference_table('_sqlx_migrations');

-- On the coordinator only, and known to the workers. They are the console's: a node that is down does not keep them from being written.
select citus_add_local_table_to_metadata('operator_actions');
select citus_add_local_table_to_metadata('refused_reuses');
select citus_add_local_table_to_metadata('traffic_minutes');

select create_distributed_table('idempotency_keys', 'merchant_id', colocate_with => 'none');
select create_distributed_table('unsettled_keys', 'merchant_id', colocate_with => 'idempotency_keys');
select create_distributed_table('payments', 'merchant_id', colocate_with => 'idempotency_keys');
select create_distributed_table('refunds', 'merchant_id', colocate_with => 'idempotency_keys');

commit;
