-- People to sign in as. Every address is under example.com, which belongs to nobody.
-- +seed:env dev,staging
-- +seed:idempotent
-- +seed:verify SELECT count(*) = 8 FROM np_accounts WHERE email LIKE '%@example.com'

INSERT INTO np_accounts (id, email, handle, display_name, status, bio, country_code, last_seen_at, created_at) VALUES
    ('ac000000-0000-4000-8000-000000000001', 'alice@example.com', 'alice', 'Alice Moreau', 'active',
     'Sells books by the harbour. Reads the last page first.',
     'FR', '2024-10-06 17:20:00+00', '2024-01-09 08:00:00+00'),
    ('ac000000-0000-4000-8000-000000000002', 'bob@example.com', 'bob', 'Bob O''Hara', 'active',
     '', 'GB', '2024-10-05 09:12:00+00', '2024-01-11 10:30:00+00'),
    ('ac000000-0000-4000-8000-000000000003', 'chioma@example.com', 'chioma', 'Chioma Nwosu', 'active',
     'Roaster at Alpine Coffee.', 'CH', '2024-10-06 06:45:00+00', '2024-02-02 12:00:00+00'),
    ('ac000000-0000-4000-8000-000000000004', 'daichi@example.com', 'daichi', '大地 Sato', 'active',
     'Buys beans by the kilo.', 'JP', '2024-10-01 23:59:59+00', '2024-02-14 07:15:00+00'),
    ('ac000000-0000-4000-8000-000000000005', 'elsa@example.com', 'elsa', 'Elsa Lindström', 'active',
     '', 'SE', '2024-09-28 14:00:00+00', '2024-03-01 09:00:00+00'),
    ('ac000000-0000-4000-8000-000000000006', 'farid@example.com', 'farid', 'Farid Haddad', 'active',
     'Writes; sometimes publishes.', 'DE', NULL, '2024-03-20 18:40:00+00'),
    ('ac000000-0000-4000-8000-000000000007', 'greta@example.com', 'greta', 'Greta Huber', 'invited',
     '', 'AT', NULL, '2024-06-12 11:11:00+00'),
    ('ac000000-0000-4000-8000-000000000008', 'henry@example.com', 'henry', 'Henry Tate', 'suspended',
     'Posted the same advertisement forty times; see the "house rules".',
     'US', '2024-05-05 05:05:00+00', '2024-04-04 04:04:00+00')
ON CONFLICT (id) DO NOTHING;
