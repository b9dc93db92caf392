-- nself:statement-timeout=5min
-- The day after: every row has its tenant, so now it is demanded. A validated CHECK lets SET NOT NULL skip its scan.

ALTER TABLE np_posts VALIDATE CONSTRAINT np_posts_tenant_id_fkey;
ALTER TABLE np_comments VALIDATE CONSTRAINT np_comments_tenant_id_fkey;

ALTER TABLE np_posts ADD CONSTRAINT np_posts_tenant_id_present CHECK (tenant_id IS NOT NULL) NOT VALID;
ALTER TABLE np_posts VALIDATE CONSTRAINT np_posts_tenant_id_present;
ALTER TABLE np_posts ALTER COLUMN tenant_id SET NOT NULL;
ALTER TABLE np_posts DROP CONSTRAINT np_posts_tenant_id_present;

ALTER TABLE np_comments ADD CONSTRAINT np_comments_tenant_id_present CHECK (tenant_id IS NOT NULL) NOT VALID;
ALTER TABLE np_comments VALIDATE CONSTRAINT np_comments_tenant_id_present;
ALTER TABLE np_comments ALTER COLUMN tenant_id SET NOT NULL;
ALTER TABLE np_comments DROP CONSTRAINT np_comments_tenant_id_present;

-- Two tenants may both have a post 'welcome'.
ALTER TABLE np_posts DROP CONSTRAINT np_posts_slug_key;
ALTER TABLE np_posts ADD CONSTRAINT np_posts_slug_key UNIQUE (tenant_id, slug);

CREATE INDEX np_comments_tenant_id_idx ON np_comments (tenant_id);
