-- nself:lock-timeout=10s
-- nself:statement-timeout=10min
-- Full-text search. A stored generated column rewrites the table under an exclusive lock: the limits above are for that.

ALTER TABLE np_posts
    ADD COLUMN search TSVECTOR GENERATED ALWAYS AS (
        setweight(to_tsvector('english'::regconfig, title), 'A')
        || setweight(to_tsvector('english'::regconfig, body), 'B')
    ) STORED;

COMMENT ON COLUMN np_posts.search IS 'Made from title (weight A) and body (weight B).';

-- Tracked by Hasura as a root field. It is no SECURITY DEFINER: who calls it sees what row-level security lets them see.
CREATE FUNCTION np_search_posts(query TEXT) RETURNS SETOF np_posts
    LANGUAGE sql
    STABLE
AS $$
    SELECT post.*
    FROM public.np_posts AS post
    WHERE post.state = 'published'
      AND post.search @@ websearch_to_tsquery('english'::regconfig, np_search_posts.query)
    ORDER BY ts_rank(post.search, websearch_to_tsquery('english'::regconfig, np_search_posts.query)) DESC, post.id
$$;
