-- The example's own table. The engine's stand beside it, and keep a book of their own.
create table orders (
    order_id  uuid primary key,
    customer  text not null,
    card      text not null,
    amount    bigint not null check (amount > 0),
    state     text not null default 'PAYING' check (state in ('PAYING', 'PAID', 'DECLINED')),
    charge_id text check ((charge_id is not null) = (state = 'PAID'))
);
