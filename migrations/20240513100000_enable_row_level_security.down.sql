DROP POLICY np_order_items_admin ON np_order_items;
DROP POLICY np_order_items_tenant_admin ON np_order_items;
DROP POLICY np_order_items_own ON np_order_items;
DROP POLICY np_order_items_app_isolation ON np_order_items;
ALTER TABLE np_order_items NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_order_items DISABLE ROW LEVEL SECURITY;

DROP POLICY np_orders_admin ON np_orders;
DROP POLICY np_orders_tenant_admin ON np_orders;
DROP POLICY np_orders_own ON np_orders;
DROP POLICY np_orders_app_isolation ON np_orders;
ALTER TABLE np_orders NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_orders DISABLE ROW LEVEL SECURITY;

DROP POLICY np_products_admin ON np_products;
DROP POLICY np_products_tenant_admin ON np_products;
DROP POLICY np_products_select_active ON np_products;
DROP POLICY np_products_app_isolation ON np_products;
ALTER TABLE np_products NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_products DISABLE ROW LEVEL SECURITY;

DROP POLICY np_post_tags_admin ON np_post_tags;
DROP POLICY np_post_tags_own ON np_post_tags;
DROP POLICY np_post_tags_select_with_post ON np_post_tags;
ALTER TABLE np_post_tags NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_post_tags DISABLE ROW LEVEL SECURITY;

DROP POLICY np_tags_admin ON np_tags;
DROP POLICY np_tags_read ON np_tags;
DROP POLICY np_tags_app_isolation ON np_tags;
ALTER TABLE np_tags NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_tags DISABLE ROW LEVEL SECURITY;

DROP POLICY np_comments_admin ON np_comments;
DROP POLICY np_comments_tenant_admin ON np_comments;
DROP POLICY np_comments_own ON np_comments;
DROP POLICY np_comments_select_with_post ON np_comments;
DROP POLICY np_comments_app_isolation ON np_comments;
ALTER TABLE np_comments NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_comments DISABLE ROW LEVEL SECURITY;

DROP POLICY np_posts_admin ON np_posts;
DROP POLICY np_posts_tenant_admin ON np_posts;
DROP POLICY np_posts_own ON np_posts;
DROP POLICY np_posts_select_published ON np_posts;
DROP POLICY np_posts_app_isolation ON np_posts;
ALTER TABLE np_posts NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_posts DISABLE ROW LEVEL SECURITY;

DROP POLICY np_memberships_admin ON np_memberships;
DROP POLICY np_memberships_tenant_admin ON np_memberships;
DROP POLICY np_memberships_select_tenant ON np_memberships;
DROP POLICY np_memberships_select_own ON np_memberships;
DROP POLICY np_memberships_app_isolation ON np_memberships;
ALTER TABLE np_memberships NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_memberships DISABLE ROW LEVEL SECURITY;

DROP POLICY np_tenants_admin ON np_tenants;
DROP POLICY np_tenants_update_tenant_admin ON np_tenants;
DROP POLICY np_tenants_select_member ON np_tenants;
DROP POLICY np_tenants_app_isolation ON np_tenants;
ALTER TABLE np_tenants NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_tenants DISABLE ROW LEVEL SECURITY;

DROP POLICY np_accounts_admin ON np_accounts;
DROP POLICY np_accounts_select_authors ON np_accounts;
DROP POLICY np_accounts_select_colleagues ON np_accounts;
DROP POLICY np_accounts_update_own ON np_accounts;
DROP POLICY np_accounts_select_own ON np_accounts;
DROP POLICY np_accounts_app_isolation ON np_accounts;
ALTER TABLE np_accounts NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_accounts DISABLE ROW LEVEL SECURITY;

DROP POLICY np_countries_admin ON np_countries;
DROP POLICY np_countries_read ON np_countries;
ALTER TABLE np_countries NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_countries DISABLE ROW LEVEL SECURITY;

DROP POLICY np_currencies_admin ON np_currencies;
DROP POLICY np_currencies_read ON np_currencies;
ALTER TABLE np_currencies NO FORCE ROW LEVEL SECURITY;
ALTER TABLE np_currencies DISABLE ROW LEVEL SECURITY;
