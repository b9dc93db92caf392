-- The editors' vocabulary, wanted in every environment, prod included.
-- The ids are given because links to tag pages contain them; the identity sequence has to be moved past them.
-- +seed:env all
-- +seed:idempotent
-- +seed:verify SELECT count(*) = 8 FROM np_tags WHERE source_account_id = 'primary' AND id <= 8

INSERT INTO np_tags (id, slug, name) VALUES
    (1, 'announcements', 'Announcements'),
    (2, 'how-to', 'How-to'),
    (3, 'interviews', 'Interviews'),
    (4, 'recipes', 'Recipes'),
    (5, 'reading', 'Reading'),
    (6, 'behind-the-counter', 'Behind the counter'),
    (7, 'questions', 'Questions & answers'),
    (8, 'cafe-life', 'Café life')
ON CONFLICT (source_account_id, slug) DO UPDATE SET name = EXCLUDED.name;
