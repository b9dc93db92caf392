-- What happened, month by month: sign-ins, sign-outs, changes of plan. Old months are dropped, not deleted from.

CREATE TABLE np_events (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    occurred_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    tenant_id UUID,
    -- No foreign keys: the record outlives the account and the tenant.
    account_id UUID,
    session_id UUID,
    kind TEXT NOT NULL CHECK (kind ~ '^[a-z]+(\.[a-z_]+)+$'),
    ip_address INET,
    user_agent TEXT,
    details JSONB NOT NULL DEFAULT '{}',
    PRIMARY KEY (id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE INDEX np_events_account_id_idx ON np_events (account_id, occurred_at DESC);
CREATE INDEX np_events_tenant_id_idx ON np_events (tenant_id, occurred_at DESC);
CREATE INDEX np_events_session_id_idx ON np_events (session_id) WHERE session_id IS NOT NULL;

CREATE TABLE np_events_default PARTITION OF np_events DEFAULT;

ALTER TABLE np_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_events FORCE ROW LEVEL SECURITY;
ALTER TABLE np_events_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_events_default FORCE ROW LEVEL SECURITY;

CREATE POLICY np_events_app_isolation ON np_events AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

-- Read and add, never change: there is no policy for UPDATE or DELETE.
CREATE POLICY np_events_select_own ON np_events FOR SELECT
    USING (account_id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
    ));

CREATE POLICY np_events_select_tenant_admin ON np_events FOR SELECT
    USING (
        tenant_id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        AND (SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'tenant_admin'
    );

CREATE POLICY np_events_insert_own ON np_events FOR INSERT
    WITH CHECK (account_id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
    ));

CREATE POLICY np_events_select_admin ON np_events FOR SELECT
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

CREATE POLICY np_events_insert_admin ON np_events FOR INSERT
    WITH CHECK ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- Run once a month by a job. A partition that is read directly is not held by its parent's policies: it gets row-level
-- security of its own and no policy, so that only the way through np_events is open.
CREATE FUNCTION np_create_events_partition(month DATE) RETURNS TEXT
    LANGUAGE plpgsql
AS $function$
DECLARE
    first_day DATE := date_trunc('month', month)::date;
    partition_name TEXT := 'np_events_' || to_char(first_day, 'YYYY_MM');
BEGIN
    EXECUTE format(
        $ddl$CREATE TABLE public.%I PARTITION OF public.np_events FOR VALUES FROM (%L) TO (%L)$ddl$,
        partition_name,
        first_day::timestamp AT TIME ZONE 'UTC',
        (first_day + INTERVAL '1 month') AT TIME ZONE 'UTC'
    );
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', partition_name);
    EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', partition_name);
    RETURN partition_name;
END
$function$;

DO $$
DECLARE
    month DATE;
BEGIN
    FOR month IN SELECT generate_series(DATE '2024-05-01', DATE '2024-12-01', INTERVAL '1 month') LOOP
        PERFORM public.np_create_events_partition(month);
    END LOOP;
END
$$;

COMMENT ON TABLE np_events IS 'Append-only, one partition a month (UTC); np_events_default takes what has none yet.';
