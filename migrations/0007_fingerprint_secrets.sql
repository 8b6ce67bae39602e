-- Which secrets sign this database's fingerprints: a service that is started with others is refused, in place of taking each
-- repeated request for another one.
do $$
begin
    create table fingerprint_secrets (
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
