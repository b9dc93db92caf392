-- Tenants sell things.

CREATE TABLE np_products (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    tenant_id UUID NOT NULL REFERENCES np_tenants (id) ON DELETE RESTRICT,
    sku TEXT NOT NULL CHECK (sku <> ''),
    name TEXT NOT NULL,
    slug TEXT NOT NULL CHECK (slug <> ''),
    description TEXT NOT NULL DEFAULT '',
    price_cents BIGINT NOT NULL CHECK (price_cents >= 0),
    currency_code TEXT NOT NULL REFERENCES np_currencies (code),
    stock INTEGER NOT NULL DEFAULT 0 CHECK (stock >= 0),
    attributes JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    is_active BOOLEAN NOT NULL DEFAULT true,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT np_products_sku_key UNIQUE (tenant_id, sku),
    CONSTRAINT np_products_slug_key UNIQUE (tenant_id, slug),
    -- What an order item refers to, so that nobody orders across tenants.
    CONSTRAINT np_products_tenant_id_id_key UNIQUE (tenant_id, id)
);

CREATE INDEX np_products_attributes_idx ON np_products USING gin (attributes jsonb_path_ops);

CREATE TRIGGER np_products_fill_slug
    BEFORE INSERT OR UPDATE ON np_products
    FOR EACH ROW EXECUTE FUNCTION np_fill_slug('name');

CREATE TRIGGER np_products_set_updated_at
    BEFORE UPDATE ON np_products
    FOR EACH ROW EXECUTE FUNCTION np_set_updated_at();

COMMENT ON TABLE np_products IS 'What a tenant sells.';
COMMENT ON COLUMN np_products.price_cents IS 'In minor units of the currency: 1250 is 12.50 EUR, and 1250 JPY.';
COMMENT ON COLUMN np_products.attributes IS
    $comment$Free form, e.g. {"colour": "blue", "weight_g": 250}. What the shop's filters use, nothing else.$comment$;
