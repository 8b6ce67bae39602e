-- The engine's tables, in their final form. Where an older payonce has made them, they are left as they are.
do $$
begin
    create table if not exists idempotency_keys (
        merchant_id         text collate "C" not null,
        operation           text collate "C" not null,
        key                 text collate "C" not null,
        fingerprint         bytea not null,
        fingerprint_version smallint not null,
        fingerprint_fields  text not null,
        state               text collate "C" not null,
        attempt             integer not null,
        owner               uuid not null,
        lease_expires_at    timestamptz,
        resource_id         text collate "C",
        response_status     smallint,
        response_headers    jsonb,
        response_body       bytea,
        created_at          timestamptz not null,
        completed_at        timestamptz,
        expires_at          timestamptz not null,
        constraint idempotency_keys_pkey primary key (merchant_id, operation, key),
        constraint idempotency_keys_scope_length check (
            octet_length(merchant_id) between 1 and 255
            and octet_length(operation) between 1 and 255
            and octet_length(key) between 1 and 255
        ),
        constraint idempotency_keys_fingerprint_length check (octet_length(fingerprint) = 32),
        constraint idempotency_keys_attempt_positive check (attempt >= 1),
        constraint idempotency_keys_state_columns check (
            case state
                when 'PROCESSING' then
                    lease_expires_at is not null
                    and completed_at is null
                    and response_status is null
                    and response_headers is null
                    and response_body is null
                when 'COMPLETED' then
                    lease_expires_at is null
                    and completed_at is not null
                    and response_status is not null
                    and response_headers is not null
                    and response_body is not null
                when 'FAILED' then
                    lease_expires_at is null
                    and completed_at is not null
                    and response_status is not null
                    and response_headers is not null
                    and response_body is not null
                else false
            end
        )
    )
    -- Rows live for a day and are updated once, by a settle that adds the response and makes the row more than twice as long. Where
    -- many rows of a page are settled in one group, the page must have room for both versions of all of them: only then does each
    -- update stay on its page (HOT) and touch no index. Vacuum comes early enough to find little to do.
    with (
        fillfactor = 25,
        autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_insert_scale_factor = 0.05,
        autovacuum_analyze_scale_factor = 0.02
    );

    -- The clean-up's way in. No other index: an index on a column that settling changes would end HOT updates.
    create index if not exists idempotency_keys_expires_at on idempotency_keys (expires_at);

    comment on table idempotency_keys is 'One row a scoped idempotency key: who executes it, and what it answered.';
    comment on column idempotency_keys.fingerprint is 'HMAC-SHA-256 of the canonical request, keyed by the server''s secret.';
    comment on column idempotency_keys.fingerprint_version is 'Version of the canonical form that was signed.';
    comment on column idempotency_keys.fingerprint_fields is 'path=digest of each field, to name the fields that differ: 24 bits of a keyed digest, never a value.';
    comment on column idempotency_keys.attempt is 'Raised by each takeover; with owner it fences every later write.';
    comment on column idempotency_keys.owner is 'The engine instance that holds, or last held, the claim.';
    comment on column idempotency_keys.lease_expires_at is 'Past this time, by the database''s clock, another may take the claim over.';
    comment on column idempotency_keys.resource_id is 'What the key made, e.g. a payment''s id.';

    -- The keys in PROCESSING, one small row each from claim to settle: how unfinished work is found and counted without an
    -- index on idempotency_keys.state.
    create table if not exists unsettled_keys (
        merchant_id text collate "C" not null,
        operation   text collate "C" not null,
        key         text collate "C" not null,
        claimed_at  timestamptz not null,
        constraint unsettled_keys_pkey primary key (merchant_id, operation, key)
    )
    with (
        autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 50000
    );

    comment on table unsettled_keys is 'The keys of idempotency_keys that are in PROCESSING, written and deleted in the same transactions.';

    -- Which secrets sign this database's fingerprints: a service that is started with others is refused, in place of taking each
    -- repeated request for another one.
    create table if not exists fingerprint_secrets (
        merchant_id text collate "C" not null default '',
        secret_id   text collate "C" not null,
        added_at    timestamptz not null default now(),
        retired_at  timestamptz,
        constraint fingerprint_secrets_pkey primary key (merchant_id, secret_id),
        constraint fingerprint_secrets_id_length check (octet_length(secret_id) = 8)
    );

    comment on table fingerprint_secrets is 'The secrets that signed fingerprints here, by an id that tells nothing of them.';
    comment on column fingerprint_secrets.merchant_id is 'Empty: the secrets are the service''s. It is here because every key begins with it.';
    comment on column fingerprint_secrets.retired_at is 'When another secret took over the signing; null while it signs.';
end
$$;
