-- Two customers and who works there. The tenant 'community' comes with the migrations.
-- +seed:env dev,staging
-- +seed:depends-on accounts.sql
-- +seed:idempotent
-- +seed:verify SELECT count(*) = 2 FROM np_memberships WHERE role = 'owner'

INSERT INTO np_tenants (id, name, plan, billing_email, created_by, created_at) VALUES
    ('7e000000-0000-4000-8000-000000000001', 'Harbour Books', 'team', 'alice@example.com',
     'ac000000-0000-4000-8000-000000000001', '2024-03-12 09:00:00+00'),
    ('7e000000-0000-4000-8000-000000000002', 'Alpine Coffee', 'business', 'chioma@example.com',
     'ac000000-0000-4000-8000-000000000003', '2024-03-13 10:00:00+00')
ON CONFLICT (id) DO NOTHING;

INSERT INTO np_memberships (tenant_id, account_id, role) VALUES
    ('7e000000-0000-4000-8000-000000000001', 'ac000000-0000-4000-8000-000000000001', 'owner'),
    ('7e000000-0000-4000-8000-000000000001', 'ac000000-0000-4000-8000-000000000002', 'member'),
    ('7e000000-0000-4000-8000-000000000002', 'ac000000-0000-4000-8000-000000000003', 'owner'),
    ('7e000000-0000-4000-8000-000000000002', 'ac000000-0000-4000-8000-000000000005', 'admin'),
    ('7e000000-0000-4000-8000-000000000002', 'ac000000-0000-4000-8000-000000000007', 'member'),
    ('7e000000-0000-4000-8000-000000000000', 'ac000000-0000-4000-8000-000000000006', 'member')
ON CONFLICT (tenant_id, account_id) DO UPDATE SET role = EXCLUDED.role;
