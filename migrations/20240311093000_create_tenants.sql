-- Cloud customers. tenant_id (UUID) separates them from each other inside one app;
-- source_account_id (TEXT) separates the apps of a deployment. The two never stand in for each other.

CREATE TYPE np_tenant_plan AS ENUM ('free', 'team', 'business');
CREATE TYPE np_member_role AS ENUM ('owner', 'admin', 'member');

CREATE TABLE np_tenants (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    name TEXT NOT NULL,
    slug TEXT NOT NULL CHECK (slug <> ''),
    plan np_tenant_plan NOT NULL DEFAULT 'free',
    billing_email TEXT,
    created_by UUID REFERENCES np_accounts (id) ON DELETE SET NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT np_tenants_slug_key UNIQUE (source_account_id, slug),
    CONSTRAINT np_tenants_billing_check CHECK (plan = 'free' OR billing_email IS NOT NULL)
);

CREATE INDEX np_tenants_created_by_idx ON np_tenants (created_by);

CREATE TRIGGER np_tenants_fill_slug
    BEFORE INSERT OR UPDATE ON np_tenants
    FOR EACH ROW EXECUTE FUNCTION np_fill_slug('name');

CREATE TRIGGER np_tenants_set_updated_at
    BEFORE UPDATE ON np_tenants
    FOR EACH ROW EXECUTE FUNCTION np_set_updated_at();

CREATE TABLE np_memberships (
    tenant_id UUID NOT NULL REFERENCES np_tenants (id) ON DELETE CASCADE,
    account_id UUID NOT NULL REFERENCES np_accounts (id) ON DELETE CASCADE,
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    role np_member_role NOT NULL DEFAULT 'member',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, account_id)
);

CREATE INDEX np_memberships_account_id_idx ON np_memberships (account_id);

-- Billing writes to one person.
CREATE UNIQUE INDEX np_memberships_owner_key ON np_memberships (tenant_id) WHERE role = 'owner';

COMMENT ON TABLE np_tenants IS 'Paying customers and the teams on the free plan.';
COMMENT ON TABLE np_memberships IS 'Who belongs to which tenant, and as what.';
