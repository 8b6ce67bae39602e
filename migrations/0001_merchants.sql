-- Who is paid, and the secrets by which they are known. Every key of every table begins with merchant_id, so that
-- the schema can be distributed by merchant (docs/DESIGN.md, "Why does every key begin with the merchant?").

create table merchants (
    merchant_id text collate "C" not null,
    name        text not null,
    created_at  timestamptz not null default now(),
    constraint merchants_pkey primary key (merchant_id),
    constraint merchants_merchant_id_shape check (merchant_id ~ '^[A-Za-z0-9_.-]{1,64}$'),
    constraint merchants_name_length check (char_length(name) between 1 and 200)
);

create table api_keys (
    merchant_id text collate "C" not null,
    api_key_id  text collate "C" not null,
    secret_hash bytea not null,
    created_at  timestamptz not null default now(),
    revoked_at  timestamptz,
    constraint api_keys_pkey primary key (merchant_id, api_key_id),
    constraint api_keys_merchant_fkey foreign key (merchant_id) references merchants (merchant_id),
    constraint api_keys_secret_hash_length check (octet_length(secret_hash) = 32)
);

-- Not unique: a unique constraint would not begin with merchant_id. 256 random bits do not collide.
create index api_keys_secret_hash on api_keys (secret_hash);

comment on column api_keys.secret_hash is 'SHA-256 of the whole API key; the key itself is shown once and kept nowhere.';
