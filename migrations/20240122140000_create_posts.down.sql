DROP TABLE np_posts;
DROP TYPE np_post_state;
DROP FUNCTION np_stamp_publication();
DROP FUNCTION np_fill_slug();
