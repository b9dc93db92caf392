DROP TABLE np_post_tags;
DROP TABLE np_tags;
DROP TABLE np_comments;
