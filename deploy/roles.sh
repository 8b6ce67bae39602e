#!/bin/sh
#
# Sets up what payonce needs on a PostgreSQL server: the database, the roles of roles.sql, their rights on the existing tables, and the
# passwords that are given. Run it before the first migration, after each migration, and to change a password. It may be run at any time
# and any number of times.
#
#   PGHOST=db PGUSER=postgres PGPASSWORD=… PAYONCE_SERVICE_PASSWORD=… sh deploy/roles.sh
#
# PostgreSQL's own variables (PGHOST, PGPORT, PGUSER, PGPASSWORD, PGSSLMODE, …) name the server and a superuser. PGDATABASE is payonce's
# database, by default payonce. PAYONCE_OWNER_PASSWORD, PAYONCE_SERVICE_PASSWORD and PAYONCE_CLEANUP_PASSWORD are the roles' passwords,
# and POSTGRES_PASSWORD is the superuser's own. Each may be read from a file instead, named by the variable with _FILE. A password that
# is not given stays unchanged.
set -eu

folder=$(cd "$(dirname "$0")" && pwd)
database=${PGDATABASE:-payonce}

# Sets and exports the variable $1, from the file that $1_FILE names if it is set.
secret() {
  eval "value=\${$1:-} file=\${$1_FILE:-}"
  if [ -n "$file" ]; then
    if [ -n "$value" ]; then
      echo "roles.sh: $1 and $1_FILE are both set: unset one of them" >&2
      exit 2
    fi
    value=$(cat -- "$file")
  fi
  export "$1=$value"
}
secret PAYONCE_OWNER_PASSWORD
secret PAYONCE_SERVICE_PASSWORD
secret PAYONCE_CLEANUP_PASSWORD
secret POSTGRES_PASSWORD

run() {
  psql -X -q -v ON_ERROR_STOP=1 "$@"
}

run --dbname=postgres -v database="$database" <<'SQL'
select format('create database %I encoding ''UTF8'' template template0', :'database')
where not exists (select from pg_database where datname = :'database')
\gexec
SQL

run --dbname="$database" --file="$folder/roles.sql"

# psql reads the passwords from the environment, because everybody on the machine can see a program's arguments. The settings below keep
# the passwords out of the server's log.
run --dbname="$database" <<'SQL'
\set owner `printf %s "$PAYONCE_OWNER_PASSWORD"`
\set service `printf %s "$PAYONCE_SERVICE_PASSWORD"`
\set cleanup `printf %s "$PAYONCE_CLEANUP_PASSWORD"`
\set superuser `printf %s "$POSTGRES_PASSWORD"`
set log_statement = 'none';
set log_min_duration_statement = -1;
set log_min_error_statement = 'panic';
set password_encryption = 'scram-sha-256';
select format('alter role %I password %L', role_name, password)
from (
    values
        ('payonce_owner', :'owner'),
        ('payonce_service', :'service'),
        ('payonce_cleanup', :'cleanup'),
        (current_user, :'superuser')
) as given (role_name, password)
where password <> ''
\gexec
SQL
