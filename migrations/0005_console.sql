-- The operator's console: who did what, what was refused, and how much there was to do. No claim and no settle writes
-- here; docs/DESIGN.md, "Why does the console have tables of its own?".

create table operator_actions (
    merchant_id text collate "C" not null,
    action_id   uuid not null,
    occurred_at timestamptz not null default now(),
    operator    text not null,
    peer        text not null,
    session_id  uuid,
    action      text collate "C" not null,
    operation   text collate "C",
    key         text collate "C",
    outcome     text collate "C",
    constraint operator_actions_pkey primary key (merchant_id, action_id),
    constraint operator_actions_operator_length check (char_length(operator) between 1 and 64),
    constraint operator_actions_action check (action in ('sign_in', 'sign_in_refused', 'sign_out', 'resolve_now')),
    constraint operator_actions_session check ((session_id is null) = (action = 'sign_in_refused')),
    constraint operator_actions_subject check (
        (operation is not null) = (action = 'resolve_now')
        and (key is not null) = (action = 'resolve_now')
        and (merchant_id <> '') = (action = 'resolve_now')
    )
);

-- The list of all actions, newest first. Not unique: it would not begin with merchant_id.
create index operator_actions_newest on operator_actions (action_id);

-- Has this session been signed out? Asked on every page.
create index operator_actions_sign_outs on operator_actions (merchant_id, session_id) where action = 'sign_out';

comment on table operator_actions is 'What operators did in the console; written before it is done, and never deleted by the service.';
comment on column operator_actions.merchant_id is 'Whose work was acted upon; empty where it was nobody''s, as in signing in.';
comment on column operator_actions.action_id is 'A UUIDv7: the order of the actions.';
comment on column operator_actions.operator is 'The name that was given at signing in.';
comment on column operator_actions.peer is 'The address that the request came from; a proxy''s, where there is one.';
comment on column operator_actions.session_id is 'The session that it was done in. A sign_out with it is what ends the session on every node.';
comment on column operator_actions.outcome is 'What came of it; null while it is under way, or where the node died meanwhile.';

create table refused_reuses (
    merchant_id     text collate "C" not null,
    operation       text collate "C" not null,
    key             text collate "C" not null,
    actual_prefix   text collate "C" not null,
    expected_prefix text collate "C" not null,
    changed         text[] not null,
    refusals        bigint not null,
    first_seen_at   timestamptz not null,
    last_seen_at    timestamptz not null,
    constraint refused_reuses_pkey primary key (merchant_id, operation, key, actual_prefix),
    constraint refused_reuses_prefix_length check (octet_length(actual_prefix) = 16 and octet_length(expected_prefix) = 16),
    constraint refused_reuses_refusals_positive check (refusals >= 1)
);

-- The latest of them, and those that are old enough to be deleted.
create index refused_reuses_last_seen on refused_reuses (last_seen_at);

comment on table refused_reuses is 'Requests that came under a key of another request: the last few of each key, for a week.';
comment on column refused_reuses.actual_prefix is 'The first 16 hexadecimal digits of the refused request''s fingerprint.';
comment on column refused_reuses.expected_prefix is 'Those of the request that has the key.';
comment on column refused_reuses.changed is 'The paths of the fields that differ, never values.';
comment on column refused_reuses.refusals is 'How often that request was refused, as far as it was seen: a full queue drops some.';

create table traffic_minutes (
    merchant_id text collate "C" not null,
    minute      timestamptz not null,
    node        uuid not null,
    executed    bigint not null,
    replayed    bigint not null,
    made        bigint not null,
    declined    bigint not null,
    unknown     bigint not null,
    failed      bigint not null,
    constraint traffic_minutes_pkey primary key (merchant_id, minute, node)
);

comment on table traffic_minutes is 'What the nodes answered, one row a minute and node, for a day: the console''s charts.';
comment on column traffic_minutes.merchant_id is 'Empty: a node counts all merchants together. It is here because every key begins with it.';
comment on column traffic_minutes.node is 'The engine that counted, as idempotency_keys.owner has it.';
comment on column traffic_minutes.executed is 'Keyed requests that were executed by this request.';
comment on column traffic_minutes.replayed is 'Keyed requests that were answered by a stored outcome.';
comment on column traffic_minutes.made is 'Payments that were charged or authorized.';
comment on column traffic_minutes.declined is 'Payments that the gateway declined.';
comment on column traffic_minutes.unknown is 'Requests that were answered 202: the gateway''s answer did not come in time.';
comment on column traffic_minutes.failed is 'Requests that were answered 5xx.';
