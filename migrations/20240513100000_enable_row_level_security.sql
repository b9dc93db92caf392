-- Row-level security: the second wall behind Hasura's permissions.
--
-- Every policy reads what Hasura sets for the request: hasura.user, a JSON object of x-hasura-… variables. The setting
-- is missing on a fresh session and '' after a transaction that had it: NULLIF makes both NULL, and NULL lets nobody
-- in. Each look-up is a sub-select, so that it is done once for a statement and not once for a row.
--
-- Two isolation levels, two columns, never mixed:
--   *_app_isolation   RESTRICTIVE, source_account_id: which app of the deployment; must hold beside any other policy.
--   the other ones    permissive, tenant_id or the account: which customer, which person.
--
-- Superusers and roles with BYPASSRLS walk past all of it. FORCE holds the tables' owner to it as well, who is let in
-- by the role 'admin' (SET "hasura.user" = '{"x-hasura-role": "admin"}').

-- np_currencies

ALTER TABLE np_currencies ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_currencies FORCE ROW LEVEL SECURITY;

CREATE POLICY np_currencies_read ON np_currencies FOR SELECT
    USING (true);

CREATE POLICY np_currencies_admin ON np_currencies
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_countries

ALTER TABLE np_countries ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_countries FORCE ROW LEVEL SECURITY;

CREATE POLICY np_countries_read ON np_countries FOR SELECT
    USING (true);

CREATE POLICY np_countries_admin ON np_countries
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_accounts

ALTER TABLE np_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_accounts FORCE ROW LEVEL SECURITY;

CREATE POLICY np_accounts_app_isolation ON np_accounts AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_accounts_select_own ON np_accounts FOR SELECT
    USING (id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid));

CREATE POLICY np_accounts_update_own ON np_accounts FOR UPDATE
    USING (id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid))
    WITH CHECK (id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
    ));

CREATE POLICY np_accounts_select_colleagues ON np_accounts FOR SELECT
    USING (
        EXISTS (
            SELECT 1
            FROM np_memberships AS membership
            WHERE membership.account_id = np_accounts.id
              AND membership.tenant_id = (
                  SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid
              )
        )
    );

CREATE POLICY np_accounts_select_authors ON np_accounts FOR SELECT
    USING (
        EXISTS (
            SELECT 1
            FROM np_posts AS post
            WHERE post.author_id = np_accounts.id
              AND post.state = 'published'
        )
    );

CREATE POLICY np_accounts_admin ON np_accounts
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_tenants

ALTER TABLE np_tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_tenants FORCE ROW LEVEL SECURITY;

CREATE POLICY np_tenants_app_isolation ON np_tenants AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_tenants_select_member ON np_tenants FOR SELECT
    USING (
        id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        OR EXISTS (
            SELECT 1
            FROM np_memberships AS membership
            WHERE membership.tenant_id = np_tenants.id
              AND membership.account_id = (
                  SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
              )
        )
    );

CREATE POLICY np_tenants_update_tenant_admin ON np_tenants FOR UPDATE
    USING (
        id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        AND (SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'tenant_admin'
    );

CREATE POLICY np_tenants_admin ON np_tenants
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_memberships

ALTER TABLE np_memberships ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_memberships FORCE ROW LEVEL SECURITY;

CREATE POLICY np_memberships_app_isolation ON np_memberships AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_memberships_select_own ON np_memberships FOR SELECT
    USING (account_id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
    ));

CREATE POLICY np_memberships_select_tenant ON np_memberships FOR SELECT
    USING (tenant_id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid
    ));

CREATE POLICY np_memberships_tenant_admin ON np_memberships
    USING (
        tenant_id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        AND (SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'tenant_admin'
    );

CREATE POLICY np_memberships_admin ON np_memberships
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_posts

ALTER TABLE np_posts ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_posts FORCE ROW LEVEL SECURITY;

CREATE POLICY np_posts_app_isolation ON np_posts AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_posts_select_published ON np_posts FOR SELECT
    USING (state = 'published');

CREATE POLICY np_posts_own ON np_posts
    USING (
        author_id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid)
        AND tenant_id = (
            SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid
        )
    );

CREATE POLICY np_posts_tenant_admin ON np_posts
    USING (
        tenant_id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        AND (SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'tenant_admin'
    );

CREATE POLICY np_posts_admin ON np_posts
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_comments

ALTER TABLE np_comments ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_comments FORCE ROW LEVEL SECURITY;

CREATE POLICY np_comments_app_isolation ON np_comments AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_comments_select_with_post ON np_comments FOR SELECT
    USING (EXISTS (SELECT 1 FROM np_posts AS post WHERE post.id = np_comments.post_id));

CREATE POLICY np_comments_own ON np_comments
    USING (author_id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
    ));

CREATE POLICY np_comments_tenant_admin ON np_comments
    USING (
        tenant_id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        AND (SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'tenant_admin'
    );

CREATE POLICY np_comments_admin ON np_comments
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_tags

ALTER TABLE np_tags ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_tags FORCE ROW LEVEL SECURITY;

CREATE POLICY np_tags_app_isolation ON np_tags AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_tags_read ON np_tags FOR SELECT
    USING (true);

CREATE POLICY np_tags_admin ON np_tags
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_post_tags

ALTER TABLE np_post_tags ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_post_tags FORCE ROW LEVEL SECURITY;

CREATE POLICY np_post_tags_select_with_post ON np_post_tags FOR SELECT
    USING (EXISTS (SELECT 1 FROM np_posts AS post WHERE post.id = np_post_tags.post_id));

CREATE POLICY np_post_tags_own ON np_post_tags
    USING (
        EXISTS (
            SELECT 1
            FROM np_posts AS post
            WHERE post.id = np_post_tags.post_id
              AND post.author_id = (
                  SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
              )
              AND post.tenant_id = (
                  SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid
              )
        )
    );

CREATE POLICY np_post_tags_admin ON np_post_tags
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_products

ALTER TABLE np_products ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_products FORCE ROW LEVEL SECURITY;

CREATE POLICY np_products_app_isolation ON np_products AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_products_select_active ON np_products FOR SELECT
    USING (is_active);

CREATE POLICY np_products_tenant_admin ON np_products
    USING (
        tenant_id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        AND (SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'tenant_admin'
    );

CREATE POLICY np_products_admin ON np_products
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_orders

ALTER TABLE np_orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_orders FORCE ROW LEVEL SECURITY;

CREATE POLICY np_orders_app_isolation ON np_orders AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_orders_own ON np_orders
    USING (account_id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
    ));

CREATE POLICY np_orders_tenant_admin ON np_orders
    USING (
        tenant_id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        AND (SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'tenant_admin'
    );

CREATE POLICY np_orders_admin ON np_orders
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

-- np_order_items

ALTER TABLE np_order_items ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_order_items FORCE ROW LEVEL SECURITY;

CREATE POLICY np_order_items_app_isolation ON np_order_items AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_order_items_own ON np_order_items
    USING (
        EXISTS (
            SELECT 1
            FROM np_orders AS parent
            WHERE parent.id = np_order_items.order_id
              AND parent.account_id = (
                  SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
              )
        )
    );

CREATE POLICY np_order_items_tenant_admin ON np_order_items
    USING (
        tenant_id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        AND (SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'tenant_admin'
    );

CREATE POLICY np_order_items_admin ON np_order_items
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');
