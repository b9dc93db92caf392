-- How two people have arranged their dashboards. The rows are known by id, because a deferrable constraint
-- (account_id, position) cannot decide a conflict.
-- +seed:env dev,staging
-- +seed:depends-on accounts.sql
-- +seed:idempotent

INSERT INTO nself_sample_dashboard_widgets (id, account_id, widget, position, options) VALUES
    ('da000000-0000-4000-8000-000000000001', 'ac000000-0000-4000-8000-000000000001', 'sales', 0, '{"days": 30}'),
    ('da000000-0000-4000-8000-000000000002', 'ac000000-0000-4000-8000-000000000001', 'inbox', 1, '{}'),
    ('da000000-0000-4000-8000-000000000003', 'ac000000-0000-4000-8000-000000000001', 'latest_posts', 2, '{"limit": 5}'),
    ('da000000-0000-4000-8000-000000000004', 'ac000000-0000-4000-8000-000000000003', 'open_orders', 0, '{}'),
    ('da000000-0000-4000-8000-000000000005', 'ac000000-0000-4000-8000-000000000003', 'sales', 1, '{"days": 7}')
ON CONFLICT (id) DO NOTHING;
