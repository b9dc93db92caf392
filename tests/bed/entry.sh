#!/bin/sh
# The entry point of the test images. It behaves like the official Postgres image where nself-db could tell:
# POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB and POSTGRES_INITDB_ARGS; a first start initialises with a temporary
# server that only the local socket reaches; afterwards postgres is process 1. Local connections are trusted,
# connections over TCP need the password.
set -eu

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown postgres:postgres "$PGDATA"
    chmod 0700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

initialise() {
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        exit 1
    fi
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    password_file=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" > "$password_file"
    # shellcheck disable=SC2086  # the arguments are a list of words, as in the official image
    initdb --pgdata="$PGDATA" --username="$user" --pwfile="$password_file" --no-sync --encoding=UTF8 \
        --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
    rm "$password_file"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    {
        echo "listen_addresses = '*'"
        # Client programs look for the socket in either place, after the way they were built.
        echo "unix_socket_directories = '/var/run/postgresql, /tmp'"
    } >> "$PGDATA/postgresql.conf"

    pg_ctl --pgdata="$PGDATA" --options="-c listen_addresses='' -c fsync=off" --wait start
    if [ "$database" != postgres ]; then
        echo 'CREATE DATABASE :"name"' |
            psql --no-psqlrc --set=ON_ERROR_STOP=1 --set=name="$database" --username="$user" --dbname=postgres
    fi
    pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
    echo
    echo "PostgreSQL init process complete; ready for start up."
    echo
}

case "${1:-}" in
    -*) set -- postgres "$@" ;;
esac
if [ "${1:-postgres}" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    # A shell that is process 1 ignores signals it has no handler for.
    trap 'exit 130' INT
    trap 'exit 143' TERM
    initialise
    trap - INT TERM
fi
exec "$@"
