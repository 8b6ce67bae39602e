-- The roles of payonce and their rights; they have no others. Run it in payonce's own database, as a superuser:
--
--   psql -v ON_ERROR_STOP=1 -f deploy/roles.sql            # PGHOST, PGUSER, PGDATABASE and so on name the database
--
-- Before the first migration it creates the roles. After each migration it grants their rights on the tables, so run it again then,
-- before the new version of the service starts. It may be run at any time and any number of times.
--
--   payonce_owner    payonce migrate, merchants (also their moves), api-keys: owns the tables
--   payonce_service  payonce serve --no-migrate, recover: reads and writes rows, and cannot alter the schema
--   payonce_cleanup  payonce-cleanup: deletes keys, and reads only a key's name, state and expiry
--
-- They can log in once they have a password. To set one without writing it to a file: \password payonce_service

begin;

-- Only tables whose owner changes are locked. Traffic queues up behind a lock that is waited for, so this gives up soon; run it again.
set local lock_timeout = '2s';

do $$
declare
    role_name text;
begin
    foreach role_name in array array['payonce_owner', 'payonce_service', 'payonce_cleanup'] loop
        if not exists (select from pg_roles where rolname = role_name) then
            execute format('create role %I login', role_name);
        end if;
    end loop;
end
$$;

-- Each session asks for these by itself. In a cluster (Citus) the sessions between the nodes get only what the role has.
alter role payonce_service set statement_timeout = '5s';
alter role payonce_service set lock_timeout = '3s';
alter role payonce_service set idle_in_transaction_session_timeout = '10s';
alter role payonce_cleanup set statement_timeout = '1min';
alter role payonce_cleanup set lock_timeout = '250ms';
alter role payonce_cleanup set idle_in_transaction_session_timeout = '10s';

-- PostgreSQL 14 lets everybody create tables in the schema public, and every version lets everybody create temporary tables.
revoke create on schema public from public;
do $$
begin
    execute format('revoke temporary on database %I from public', current_database());
end
$$;

grant create, usage on schema public to payonce_owner;
grant usage on schema public to payonce_service, payonce_cleanup;

revoke all on all tables in schema public from payonce_service, payonce_cleanup;

do $$
declare
    table_name text;
    service_may text;
    cleanup_may text;
begin
    for table_name, service_may, cleanup_may in
        values
            -- The applied migrations: each program refuses an older schema.
            ('_sqlx_migrations', 'select', 'select'),
            ('merchants', 'select', null),
            ('api_keys', 'select', null),
            -- The clean-up can read neither fingerprints nor stored answers. It cannot lock a row either, because that needs the right
            -- to update it.
            (
                'idempotency_keys',
                'select, insert, update, delete',
                'select (merchant_id, operation, key, state, expires_at), delete'
            ),
            ('unsettled_keys', 'select, insert, delete', null),
            ('fingerprint_secrets', 'select, insert, update', null),
            -- Only payments and refunds that never reached the gateway are deleted.
            ('payments', 'select, insert, update, delete', null),
            ('refunds', 'select, insert, update, delete', null),
            -- The record of operators' actions is permanent: only an action's outcome is added to it.
            ('operator_actions', 'select, insert, update (outcome)', null),
            ('refused_reuses', 'select, insert, update, delete', null),
            ('traffic_minutes', 'select, insert, update, delete', null)
    loop
        -- The table does not exist before its migration.
        if to_regclass('public.' || table_name) is not null then
            if exists (
                select
                from pg_class
                where oid = to_regclass('public.' || table_name)
                    and relowner <> 'payonce_owner'::regrole
            ) then
                execute format('alter table public.%I owner to payonce_owner', table_name);
            end if;
            execute format('grant %s on public.%I to payonce_service', service_may, table_name);
            if cleanup_may is not null then
                execute format('grant %s on public.%I to payonce_cleanup', cleanup_may, table_name);
            end if;
        end if;
    end loop;
end
$$;

commit;
