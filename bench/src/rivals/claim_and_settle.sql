-- A payment in two transactions of three statements each, as payonce's two phases are: pgbench's script, the fastest client that
-- PostgreSQL has. The row's lock decides who executes.
\set n :n + 1
\set payment :base * 1000000000000000 + :client_id * 10000000000 + :n
\set key random(1000000000000000000, 9223372036854775806)
begin;
insert into idempotency_keys (merchant_id, operation, key, fingerprint, state, created_at, expires_at) values ('bench', 'create_payment', :key, '\x9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08', 'PROCESSING', now(), now() + interval '24 hours') on conflict do nothing;
select state, fingerprint from idempotency_keys where merchant_id = 'bench' and operation = 'create_payment' and key = :key for update;
insert into payments (merchant_id, payment_id, idempotency_key, state, currency, amount_minor, card_brand, card_last4, card_expiry_month, card_expiry_year, card_holder_name, customer_id, customer_email, customer_name, created_at, updated_at) values ('bench', :payment, :key, 'PROCESSING', 'USD', 9999, 'visa', '4242', 12, 2031, 'Test User', :key, 'test@example.com', 'Test User', now(), now());
end;
begin;
select state, fingerprint from idempotency_keys where merchant_id = 'bench' and operation = 'create_payment' and key = :key for update;
update payments set state = 'SUCCESS', gateway_transaction_id = :payment, updated_at = now() where merchant_id = 'bench' and payment_id = :payment;
update idempotency_keys set state = 'COMPLETED', response_status = 201, response_headers = '{}', response_body = '\xANSWER' where merchant_id = 'bench' and operation = 'create_payment' and key = :key;
end;
