-- Posts and comments get an owner among the tenants. What was written before tenants existed goes to the
-- tenant of its author, and where the author has none to the tenant 'community'. The keys are added NOT VALID: the
-- next migration checks them without holding this one's locks.

ALTER TABLE np_posts ADD COLUMN tenant_id UUID;
ALTER TABLE np_comments ADD COLUMN tenant_id UUID;

ALTER TABLE np_posts
    ADD CONSTRAINT np_posts_tenant_id_fkey FOREIGN KEY (tenant_id)
        REFERENCES np_tenants (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE np_comments
    ADD CONSTRAINT np_comments_tenant_id_fkey FOREIGN KEY (tenant_id)
        REFERENCES np_tenants (id) ON DELETE CASCADE NOT VALID;

INSERT INTO np_tenants (id, name, slug)
VALUES ('7e000000-0000-4000-8000-000000000000', 'Community', 'community');

-- A backfill is no edit: updated_at keeps its meaning.
ALTER TABLE np_posts DISABLE TRIGGER np_posts_set_updated_at;
ALTER TABLE np_comments DISABLE TRIGGER np_comments_set_updated_at;

UPDATE np_posts
SET tenant_id = COALESCE(
    (
        SELECT membership.tenant_id
        FROM np_memberships AS membership
        WHERE membership.account_id = np_posts.author_id
        ORDER BY membership.created_at, membership.tenant_id
        LIMIT 1
    ),
    '7e000000-0000-4000-8000-000000000000'
);

UPDATE np_comments
SET tenant_id = post.tenant_id
FROM np_posts AS post
WHERE post.id = np_comments.post_id;

ALTER TABLE np_posts ENABLE TRIGGER np_posts_set_updated_at;
ALTER TABLE np_comments ENABLE TRIGGER np_comments_set_updated_at;

-- A comment always belongs to the tenant of its post. Who cannot see the post finds no tenant for the comment either.
CREATE FUNCTION np_take_tenant_of_post() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    SELECT post.tenant_id INTO NEW.tenant_id
    FROM public.np_posts AS post
    WHERE post.id = NEW.post_id;
    RETURN NEW;
END
$$;

CREATE TRIGGER np_comments_take_tenant_of_post
    BEFORE INSERT OR UPDATE OF post_id, tenant_id ON np_comments
    FOR EACH ROW EXECUTE FUNCTION np_take_tenant_of_post();

COMMENT ON COLUMN np_posts.tenant_id IS 'The customer who owns the row. Not the app: that is source_account_id.';
