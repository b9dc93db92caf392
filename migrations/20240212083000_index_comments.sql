-- nself:no-transaction
-- The site is live by now: the indexes are built while people write.

CREATE INDEX CONCURRENTLY np_comments_author_id_idx ON np_comments (author_id);
CREATE INDEX CONCURRENTLY np_comments_post_id_created_at_idx ON np_comments (post_id, created_at);
CREATE INDEX CONCURRENTLY np_post_tags_tag_id_idx ON np_post_tags (tag_id);
CREATE INDEX CONCURRENTLY np_posts_published_at_idx ON np_posts (published_at DESC) WHERE state = 'published';
