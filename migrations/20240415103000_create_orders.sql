-- Orders and their items. An order's total is kept by the database: no client adds it up.

CREATE SEQUENCE np_order_number_seq START WITH 1000;

CREATE TYPE np_order_status AS ENUM ('pending', 'paid', 'shipped', 'cancelled');

CREATE TABLE np_orders (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    tenant_id UUID NOT NULL REFERENCES np_tenants (id) ON DELETE RESTRICT,
    account_id UUID NOT NULL REFERENCES np_accounts (id) ON DELETE RESTRICT,
    number TEXT NOT NULL DEFAULT 'ORD-' || lpad(nextval('np_order_number_seq')::text, 6, '0'),
    status np_order_status NOT NULL DEFAULT 'pending',
    currency_code TEXT NOT NULL REFERENCES np_currencies (code),
    total_cents BIGINT NOT NULL DEFAULT 0 CHECK (total_cents >= 0),
    shipping_country_code TEXT REFERENCES np_countries (code),
    note TEXT,
    placed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT np_orders_number_key UNIQUE (number),
    CONSTRAINT np_orders_tenant_id_id_key UNIQUE (tenant_id, id)
);

ALTER SEQUENCE np_order_number_seq OWNED BY np_orders.number;

CREATE INDEX np_orders_account_id_idx ON np_orders (account_id, placed_at DESC);
CREATE INDEX np_orders_open_idx ON np_orders (tenant_id, placed_at) WHERE status IN ('pending', 'paid');

CREATE TRIGGER np_orders_set_updated_at
    BEFORE UPDATE ON np_orders
    FOR EACH ROW EXECUTE FUNCTION np_set_updated_at();

CREATE TABLE np_order_items (
    order_id UUID NOT NULL,
    position SMALLINT NOT NULL CHECK (position > 0),
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    tenant_id UUID NOT NULL,
    product_id UUID NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    unit_price_cents BIGINT NOT NULL CHECK (unit_price_cents >= 0),
    line_total_cents BIGINT GENERATED ALWAYS AS (quantity * unit_price_cents) STORED,
    PRIMARY KEY (order_id, position),
    CONSTRAINT np_order_items_order_fkey FOREIGN KEY (tenant_id, order_id)
        REFERENCES np_orders (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT np_order_items_product_fkey FOREIGN KEY (tenant_id, product_id)
        REFERENCES np_products (tenant_id, id)
);

CREATE INDEX np_order_items_order_idx ON np_order_items (tenant_id, order_id);
CREATE INDEX np_order_items_product_idx ON np_order_items (tenant_id, product_id);

CREATE FUNCTION np_order_total(order_id UUID) RETURNS BIGINT
    LANGUAGE sql
    STABLE
AS $$
    SELECT COALESCE(sum(item.line_total_cents), 0)::bigint
    FROM public.np_order_items AS item
    WHERE item.order_id = np_order_total.order_id
$$;

CREATE FUNCTION np_refresh_order_total() RETURNS trigger
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- An item that moved to another order changes two totals.
    UPDATE public.np_orders
    SET total_cents = public.np_order_total(id)
    WHERE id IN (OLD.order_id, NEW.order_id);
    RETURN NULL;
END
$$;

CREATE TRIGGER np_order_items_refresh_order_total
    AFTER INSERT OR UPDATE OR DELETE ON np_order_items
    FOR EACH ROW EXECUTE FUNCTION np_refresh_order_total();

-- The price at the time of the order: a later change of the product's price leaves it alone.
CREATE FUNCTION np_price_order_item() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.unit_price_cents IS NULL THEN
        SELECT product.price_cents INTO NEW.unit_price_cents
        FROM public.np_products AS product
        WHERE product.id = NEW.product_id;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER np_order_items_price
    BEFORE INSERT ON np_order_items
    FOR EACH ROW EXECUTE FUNCTION np_price_order_item();

-- For the API: a field of an order, not a column of it.
CREATE FUNCTION np_order_item_count(order_row np_orders) RETURNS BIGINT
    LANGUAGE sql
    STABLE
AS $$
    SELECT count(*) FROM public.np_order_items AS item WHERE item.order_id = order_row.id
$$;

COMMENT ON TABLE np_orders IS 'One purchase at one tenant.';
COMMENT ON COLUMN np_orders.number IS 'What the customer reads out on the telephone. Gaps are normal.';
COMMENT ON FUNCTION np_order_total(UUID) IS
    'The sum of an order''s lines in minor units; 0 for an order without items.';
