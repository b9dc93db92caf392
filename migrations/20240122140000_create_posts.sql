-- Posts. A slug is made from the title unless the author gives one.

CREATE FUNCTION np_fill_slug() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    -- The trigger's argument names the column the slug is made from: 'title' here, 'name' elsewhere. A title without a
    -- Latin letter leaves nothing, and the row's id stands in.
    IF COALESCE(NEW.slug, '') = '' THEN
        NEW.slug := COALESCE(NULLIF(public.np_slugify(to_jsonb(NEW) ->> TG_ARGV[0]), ''), left(NEW.id::text, 8));
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION np_stamp_publication() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.state = 'published' AND NEW.published_at IS NULL THEN
        NEW.published_at := now();
    END IF;
    RETURN NEW;
END
$$;

CREATE TYPE np_post_state AS ENUM ('draft', 'published', 'archived');

CREATE TABLE np_posts (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    author_id UUID NOT NULL REFERENCES np_accounts (id) ON DELETE CASCADE,
    title TEXT NOT NULL CHECK (char_length(title) BETWEEN 1 AND 200),
    slug TEXT NOT NULL CHECK (slug <> ''),
    body TEXT NOT NULL DEFAULT '',
    state np_post_state NOT NULL DEFAULT 'draft',
    published_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT np_posts_slug_key UNIQUE (source_account_id, slug),
    CONSTRAINT np_posts_published_at_check CHECK (state <> 'published' OR published_at IS NOT NULL)
);

CREATE INDEX np_posts_author_id_idx ON np_posts (author_id);

CREATE TRIGGER np_posts_fill_slug
    BEFORE INSERT OR UPDATE ON np_posts
    FOR EACH ROW EXECUTE FUNCTION np_fill_slug('title');

CREATE TRIGGER np_posts_set_updated_at
    BEFORE UPDATE ON np_posts
    FOR EACH ROW EXECUTE FUNCTION np_set_updated_at();

CREATE TRIGGER np_posts_stamp_publication
    BEFORE INSERT OR UPDATE ON np_posts
    FOR EACH ROW EXECUTE FUNCTION np_stamp_publication();

COMMENT ON TABLE np_posts IS 'Articles. Only published ones leave the author''s desk.';
