-- The example's own tables. The engine's stand beside them, and keep a book of their own.
create table orders (
    order_id uuid primary key,
    customer text not null,
    sku      text not null,
    quantity integer not null check (quantity > 0)
);

create table stock (
    sku      text primary key,
    quantity integer not null check (quantity >= 0)
);

insert into stock (sku, quantity) values ('tea', 100);
