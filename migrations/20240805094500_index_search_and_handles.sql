-- No mark at the top of this one: CONCURRENTLY says it all. The statements between the concurrent ones are ordinary.

CREATE INDEX CONCURRENTLY np_posts_search_idx ON np_posts USING gin (search);

-- An author's page lists by date: the wider index takes the narrow one's place.
CREATE INDEX CONCURRENTLY np_posts_author_id_created_at_idx ON np_posts (author_id, created_at DESC);
DROP INDEX CONCURRENTLY np_posts_author_id_idx;

-- Handles become names in URLs. The unique index is built first, then made the constraint in a moment.
CREATE UNIQUE INDEX CONCURRENTLY np_accounts_handle_key ON np_accounts (source_account_id, handle);
ALTER TABLE np_accounts ADD CONSTRAINT np_accounts_handle_key UNIQUE USING INDEX np_accounts_handle_key;

ANALYZE np_posts;
