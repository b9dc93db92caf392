-- A front page's worth of posts: published, archived and half-written ones.
-- +seed:env dev,staging
-- +seed:depends-on tenants.sql
-- +seed:depends-on tags.sql
-- +seed:idempotent
-- +seed:verify SELECT count(*) = 6 FROM np_published_posts WHERE published_at < '2024-11-01'
-- +seed:verify SELECT bool_and(slug <> '') FROM np_posts

INSERT INTO np_posts (id, tenant_id, author_id, title, body, state, published_at, created_at) VALUES
    ('b0000000-0000-4000-8000-000000000001', '7e000000-0000-4000-8000-000000000001',
     'ac000000-0000-4000-8000-000000000001',
     'Opening hours in winter', 'From November on we close at five; on Saturdays the kettle is on until six.',
     'published', '2024-10-01 08:00:00+00', '2024-09-30 16:00:00+00'),
    ('b0000000-0000-4000-8000-000000000002', '7e000000-0000-4000-8000-000000000001',
     'ac000000-0000-4000-8000-000000000002',
     'Ten novels with a lighthouse in them',
     E'Woolf, of course.\n\nThen nine others, in no order:\n\t* the one with the keeper\n\t* the one without',
     'published', '2024-06-18 12:00:00+00', '2024-06-01 09:00:00+00'),
    ('b0000000-0000-4000-8000-000000000003', '7e000000-0000-4000-8000-000000000001',
     'ac000000-0000-4000-8000-000000000002',
     'Ten novels without a lighthouse', 'A harder list than it looks.', 'draft', NULL, '2024-07-02 21:30:00+00'),
    ('b0000000-0000-4000-8000-000000000004', '7e000000-0000-4000-8000-000000000002',
     'ac000000-0000-4000-8000-000000000003',
     'How we roast: first crack, second crack', 'At 196 °C the beans begin to talk. We stop listening before 224 °C.',
     'published', '2024-04-22 07:30:00+00', '2024-04-20 06:00:00+00'),
    ('b0000000-0000-4000-8000-000000000005', '7e000000-0000-4000-8000-000000000002',
     'ac000000-0000-4000-8000-000000000005',
     'Crème brûlée and espresso', 'Sugar, a flame, and 25 seconds of water under nine bars.',
     'published', '2024-08-09 15:45:00+00', '2024-08-08 10:00:00+00'),
    ('b0000000-0000-4000-8000-000000000006', '7e000000-0000-4000-8000-000000000002',
     'ac000000-0000-4000-8000-000000000005',
     'Summer menu', 'Cold brew; affogato; nothing hot.',
     'archived', '2024-06-01 06:00:00+00', '2024-05-28 11:00:00+00'),
    ('b0000000-0000-4000-8000-000000000007', '7e000000-0000-4000-8000-000000000000',
     'ac000000-0000-4000-8000-000000000006',
     'Hello, community', 'I write about coffee in books, and books in cafés. Where do I start?',
     'published', '2024-03-21 19:00:00+00', '2024-03-21 18:55:00+00'),
    ('b0000000-0000-4000-8000-000000000008', '7e000000-0000-4000-8000-000000000000',
     'ac000000-0000-4000-8000-000000000006',
     'An interview; or, the café at the end of the pier', 'Alice Moreau on shelves, salt air and returns.',
     'published', '2024-09-15 10:10:00+00', '2024-09-14 08:00:00+00')
ON CONFLICT (id) DO NOTHING;

INSERT INTO np_post_tags (post_id, tag_id)
SELECT pair.post_id::uuid, tag.id
FROM (
    VALUES
        ('b0000000-0000-4000-8000-000000000001', 'announcements'),
        ('b0000000-0000-4000-8000-000000000002', 'reading'),
        ('b0000000-0000-4000-8000-000000000003', 'reading'),
        ('b0000000-0000-4000-8000-000000000004', 'how-to'),
        ('b0000000-0000-4000-8000-000000000004', 'behind-the-counter'),
        ('b0000000-0000-4000-8000-000000000005', 'recipes'),
        ('b0000000-0000-4000-8000-000000000006', 'announcements'),
        ('b0000000-0000-4000-8000-000000000007', 'questions'),
        ('b0000000-0000-4000-8000-000000000008', 'interviews'),
        ('b0000000-0000-4000-8000-000000000008', 'cafe-life')
) AS pair (post_id, slug)
JOIN np_tags AS tag ON tag.slug = pair.slug AND tag.source_account_id = 'primary'
ON CONFLICT (post_id, tag_id) DO NOTHING;
