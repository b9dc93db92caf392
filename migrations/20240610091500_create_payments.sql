-- nself:lock-timeout=10s
-- Payments and refunds. The order's status follows the money.

CREATE TYPE np_payment_status AS ENUM ('authorised', 'captured', 'failed');

CREATE TABLE np_payments (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    tenant_id UUID NOT NULL,
    order_id UUID NOT NULL,
    provider TEXT NOT NULL,
    provider_reference TEXT NOT NULL,
    status np_payment_status NOT NULL DEFAULT 'authorised',
    amount_cents BIGINT NOT NULL CHECK (amount_cents > 0),
    refunded_cents BIGINT NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- Providers call their webhooks twice.
    CONSTRAINT np_payments_provider_reference_key UNIQUE (provider, provider_reference),
    CONSTRAINT np_payments_refunded_check CHECK (
        refunded_cents >= 0 AND refunded_cents <= amount_cents AND (refunded_cents = 0 OR status = 'captured')
    ),
    CONSTRAINT np_payments_order_fkey FOREIGN KEY (tenant_id, order_id)
        REFERENCES np_orders (tenant_id, id) ON DELETE RESTRICT
);

CREATE INDEX np_payments_order_idx ON np_payments (tenant_id, order_id);

CREATE TRIGGER np_payments_set_updated_at
    BEFORE UPDATE ON np_payments
    FOR EACH ROW EXECUTE FUNCTION np_set_updated_at();

-- Orders that were paid before there was this table: they were paid by bank transfer.
INSERT INTO np_payments (source_account_id, tenant_id, order_id, provider, provider_reference, status, amount_cents)
SELECT source_account_id, tenant_id, id, 'bank_transfer', number, 'captured', total_cents
FROM np_orders
WHERE status IN ('paid', 'shipped') AND total_cents > 0;

CREATE FUNCTION np_settle_order() RETURNS trigger
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    captured BIGINT;
    refunded BIGINT;
BEGIN
    SELECT COALESCE(sum(payment.amount_cents), 0), COALESCE(sum(payment.refunded_cents), 0)
    INTO captured, refunded
    FROM public.np_payments AS payment
    WHERE payment.order_id = NEW.order_id AND payment.status = 'captured';

    IF captured > 0 AND refunded = captured THEN
        UPDATE public.np_orders SET status = 'refunded'
        WHERE id = NEW.order_id AND status IN ('paid', 'shipped');
    ELSIF captured > 0 THEN
        UPDATE public.np_orders SET status = 'paid'
        WHERE id = NEW.order_id AND status = 'pending' AND total_cents <= captured;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER np_payments_settle_order
    AFTER INSERT OR UPDATE OF status, amount_cents, refunded_cents ON np_payments
    FOR EACH ROW EXECUTE FUNCTION np_settle_order();

-- What the previous migration's enum value is for.
CREATE INDEX np_orders_refunded_idx ON np_orders (tenant_id, updated_at DESC) WHERE status = 'refunded';

ALTER TABLE np_payments ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_payments FORCE ROW LEVEL SECURITY;

CREATE POLICY np_payments_app_isolation ON np_payments AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_payments_select_own ON np_payments FOR SELECT
    USING (
        EXISTS (
            SELECT 1
            FROM np_orders AS parent
            WHERE parent.id = np_payments.order_id
              AND parent.account_id = (
                  SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
              )
        )
    );

CREATE POLICY np_payments_tenant_admin ON np_payments
    USING (
        tenant_id = (SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-tenant-id')::uuid)
        AND (SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'tenant_admin'
    );

CREATE POLICY np_payments_admin ON np_payments
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

COMMENT ON TABLE np_payments IS 'Money in, and money given back (refunded_cents).';
