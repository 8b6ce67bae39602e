#!/bin/sh
# Gives the roles of deploy/roles.sql their passwords, when the image makes the database.
set -eu
psql -X -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "$POSTGRES_DB" \
  -v owner="$PAYONCE_OWNER_PASSWORD" \
  -v service="$PAYONCE_SERVICE_PASSWORD" \
  -v cleanup="$PAYONCE_CLEANUP_PASSWORD" <<'SQL'
alter role payonce_owner password :'owner';
alter role payonce_service password :'service';
alter role payonce_cleanup password :'cleanup';
SQL
