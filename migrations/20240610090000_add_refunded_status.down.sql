-- An enum value cannot be dropped, so the type is made anew without it. Refunded orders count as cancelled again.

UPDATE np_orders SET status = 'cancelled' WHERE status = 'refunded';

DROP INDEX np_orders_open_idx;

ALTER TYPE np_order_status RENAME TO np_order_status_with_refunded;
CREATE TYPE np_order_status AS ENUM ('pending', 'paid', 'shipped', 'cancelled');

ALTER TABLE np_orders
    ALTER COLUMN status DROP DEFAULT,
    ALTER COLUMN status TYPE np_order_status USING status::text::np_order_status,
    ALTER COLUMN status SET DEFAULT 'pending';

DROP TYPE np_order_status_with_refunded;

CREATE INDEX np_orders_open_idx ON np_orders (tenant_id, placed_at) WHERE status IN ('pending', 'paid');
