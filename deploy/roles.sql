-- The roles of payonce, and what each may do; whatever is not said here, it may not. In payonce's own database, as a
-- superuser:
--
--   psql -v ON_ERROR_STOP=1 -f deploy/roles.sql "$ADMIN_URL"
--
-- Before the first migration it makes the roles; after each migration it gives them their rights to the tables, so run it
-- again then, before the new version of the service starts. It may be run at any time, and as often as one likes.
--
--   payonce_owner    payonce migrate, merchants, api-keys: owns the tables
--   payonce_service  payonce serve --no-migrate, recover: works on the rows, and cannot alter the schema
--   payonce_cleanup  payonce-cleanup: deletes keys, reads of a key only what it is and whether its time is over
--
-- They can log in once they have a password, which no file need hold: \password payonce_service

begin;

-- Only a table whose owner changes is locked, and traffic queues up behind a lock that is waited for: this gives way, and may be
-- run again.
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

-- PostgreSQL 14 lets everybody create tables in the schema public, and every version temporary ones.
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
            -- Which migrations were applied: each program refuses an older schema.
            ('_sqlx_migrations', 'select', 'select'),
            ('merchants', 'select', null),
            ('api_keys', 'select', null),
            -- The clean-up sees neither fingerprints nor stored answers. It may not lock a row either, which would take
            -- the right to update it.
            (
                'idempotency_keys',
                'select, insert, update, delete',
                'select (merchant_id, operation, key, state, expires_at), delete'
            ),
            ('unsettled_keys', 'select, insert, delete', null),
            ('fingerprint_secrets', 'select, insert, update', null),
            -- Deleted is only what never reached the gateway.
            ('payments', 'select, insert, update, delete', null),
            ('refunds', 'select, insert, update, delete', null),
            -- What operators did stays: only what came of it is added.
            ('operator_actions', 'select, insert, update (outcome)', null),
            ('refused_reuses', 'select, insert, update, delete', null),
            ('traffic_minutes', 'select, insert, update, delete', null)
    loop
        -- Before the migration that makes it, a table is not there.
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
