-- nself:no-transaction

DROP INDEX CONCURRENTLY np_posts_published_at_idx;
DROP INDEX CONCURRENTLY np_post_tags_tag_id_idx;
DROP INDEX CONCURRENTLY np_comments_post_id_created_at_idx;
DROP INDEX CONCURRENTLY np_comments_author_id_idx;
