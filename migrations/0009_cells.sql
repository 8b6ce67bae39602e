-- A merchant may be moved to another cell, which is another database. Its row says how far the move is. `payonce merchants move` makes
-- triggers that call this function for as long as they are needed, so that no payment pays for them where nothing moves
-- (docs/DESIGN.md, "Why is a merchant's move fenced by triggers?").
do $$
begin
    alter table merchants
        add column move_state text collate "C",
        add column move_cell smallint,
        add column move_id uuid,
        add column move_since timestamptz,
        add constraint merchants_move check (
            case
                when move_state is null then
                    move_cell is null
                    and move_id is null
                    and move_since is null
                when move_state in ('LEAVING', 'COPYING', 'MOVED') then
                    move_cell is not null
                    and move_id is not null
                    and move_since is not null
                when move_state = 'ARRIVING' then
                    move_id is not null
                    and move_since is not null
                else false
            end
        );

    comment on column merchants.move_state is 'How far a move is: LEAVING (no new claims), COPYING (no writes), MOVED (served by the other cell), ARRIVING (not served here yet); null where the merchant is served here.';
    comment on column merchants.move_cell is 'The other cell: where it moves to, or comes from; null where the one that it comes from has no number.';
    comment on column merchants.move_id is 'The same in both cells: a copy is opened by its own move only.';
    comment on column merchants.move_since is 'When the move began.';

    create function refuse_writes_of_a_moving_merchant() returns trigger
    language plpgsql
    as $refuse$
    begin
        -- The move itself, and nobody else, says in its transaction whose rows it writes.
        if current_setting('payonce.moving', true) is distinct from new.merchant_id then
            raise exception 'merchant % is not served by this database: it is being moved, or was moved, to another cell', new.merchant_id
                using errcode = '40M01';
        end if;
        return null;
    end
    $refuse$;

    comment on function refuse_writes_of_a_moving_merchant() is 'For triggers after insert or update. 40M01 is of class 40, transaction rollback: the same request may be sent again.';
end
$$;
