DROP FUNCTION np_search_posts(TEXT);
ALTER TABLE np_posts DROP COLUMN search;
