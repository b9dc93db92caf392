DROP INDEX np_comments_tenant_id_idx;

-- Slugs that were one per tenant must be one per app again: the younger post's slug gets a piece of its id.
ALTER TABLE np_posts DROP CONSTRAINT np_posts_slug_key;
UPDATE np_posts
SET slug = slug || '-' || left(id::text, 8)
WHERE EXISTS (
    SELECT 1
    FROM np_posts AS elder
    WHERE elder.source_account_id = np_posts.source_account_id
      AND elder.slug = np_posts.slug
      AND (elder.created_at, elder.id) < (np_posts.created_at, np_posts.id)
);
ALTER TABLE np_posts ADD CONSTRAINT np_posts_slug_key UNIQUE (source_account_id, slug);

ALTER TABLE np_comments ALTER COLUMN tenant_id DROP NOT NULL;
ALTER TABLE np_posts ALTER COLUMN tenant_id DROP NOT NULL;

-- A validated key is made an unvalidated one only by making it anew.
ALTER TABLE np_comments DROP CONSTRAINT np_comments_tenant_id_fkey;
ALTER TABLE np_comments
    ADD CONSTRAINT np_comments_tenant_id_fkey FOREIGN KEY (tenant_id)
        REFERENCES np_tenants (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE np_posts DROP CONSTRAINT np_posts_tenant_id_fkey;
ALTER TABLE np_posts
    ADD CONSTRAINT np_posts_tenant_id_fkey FOREIGN KEY (tenant_id)
        REFERENCES np_tenants (id) ON DELETE CASCADE NOT VALID;
