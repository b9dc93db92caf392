ALTER TABLE np_accounts DROP CONSTRAINT np_accounts_handle_key;
CREATE INDEX CONCURRENTLY np_posts_author_id_idx ON np_posts (author_id);
DROP INDEX CONCURRENTLY np_posts_author_id_created_at_idx;
DROP INDEX CONCURRENTLY np_posts_search_idx;
