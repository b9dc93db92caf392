DROP TRIGGER np_comments_take_tenant_of_post ON np_comments;
DROP FUNCTION np_take_tenant_of_post();
ALTER TABLE np_comments DROP COLUMN tenant_id;
ALTER TABLE np_posts DROP COLUMN tenant_id;
DELETE FROM np_tenants WHERE id = '7e000000-0000-4000-8000-000000000000';
