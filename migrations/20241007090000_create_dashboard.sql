-- The dashboard: what the public sees, what was sold, and each account's own arrangement of it. The last table is this
-- app's alone and bears its own prefix; the rest belongs to nSelf's common np_ set.

CREATE VIEW np_published_posts AS
SELECT
    post.id,
    post.source_account_id,
    post.tenant_id,
    post.author_id,
    author.display_name AS author_name,
    post.title,
    post.slug,
    post.body,
    post.published_at,
    (SELECT count(*) FROM np_comments AS comment WHERE comment.post_id = post.id) AS comment_count
FROM np_posts AS post
JOIN np_accounts AS author ON author.id = post.author_id
WHERE post.state = 'published';

-- Without this a view reads with its owner's rights and past the tables' policies. Postgres 13 and 14 cannot: there
-- the view's own WHERE and Hasura's filter on source_account_id are what stands.
DO $$
BEGIN
    IF current_setting('server_version_num')::integer >= 150000 THEN
        EXECUTE 'ALTER VIEW np_published_posts SET (security_invoker = true)';
    END IF;
END
$$;

CREATE MATERIALIZED VIEW np_daily_sales AS
SELECT
    source_account_id,
    tenant_id,
    currency_code,
    (placed_at AT TIME ZONE 'UTC')::date AS day,
    count(*) AS orders,
    sum(total_cents)::bigint AS total_cents
FROM np_orders
WHERE status IN ('paid', 'shipped')
GROUP BY source_account_id, tenant_id, currency_code, (placed_at AT TIME ZONE 'UTC')::date;

-- REFRESH … CONCURRENTLY needs a unique index over whole rows.
CREATE UNIQUE INDEX np_daily_sales_key ON np_daily_sales (tenant_id, currency_code, day, source_account_id);

CREATE FUNCTION np_refresh_daily_sales() RETURNS void
    LANGUAGE sql
AS $$
    REFRESH MATERIALIZED VIEW CONCURRENTLY public.np_daily_sales;
$$;

CREATE TYPE nself_sample_widget AS ENUM ('sales', 'latest_posts', 'inbox', 'open_orders');

CREATE TABLE nself_sample_dashboard_widgets (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    account_id UUID NOT NULL REFERENCES np_accounts (id) ON DELETE CASCADE,
    widget nself_sample_widget NOT NULL,
    position SMALLINT NOT NULL CHECK (position >= 0),
    options JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- Deferred, so that two widgets can change places in one transaction.
    CONSTRAINT nself_sample_dashboard_widgets_position_key UNIQUE (account_id, position)
        DEFERRABLE INITIALLY DEFERRED
);

CREATE TRIGGER nself_sample_dashboard_widgets_set_updated_at
    BEFORE UPDATE ON nself_sample_dashboard_widgets
    FOR EACH ROW EXECUTE FUNCTION np_set_updated_at();

ALTER TABLE nself_sample_dashboard_widgets ENABLE ROW LEVEL SECURITY;
ALTER TABLE nself_sample_dashboard_widgets FORCE ROW LEVEL SECURITY;

CREATE POLICY nself_sample_dashboard_widgets_app_isolation ON nself_sample_dashboard_widgets AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY nself_sample_dashboard_widgets_own ON nself_sample_dashboard_widgets
    USING (account_id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
    ));

CREATE POLICY nself_sample_dashboard_widgets_admin ON nself_sample_dashboard_widgets
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

COMMENT ON VIEW np_published_posts IS 'Posts as the public reads them.';
COMMENT ON MATERIALIZED VIEW np_daily_sales IS 'Sales by tenant, currency and UTC day; as old as its last refresh.';
COMMENT ON TABLE nself_sample_dashboard_widgets IS 'Which widgets an account has on its dashboard, and where.';
