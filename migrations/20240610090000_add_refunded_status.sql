-- A file of its own: a new enum value cannot be used in the transaction that adds it.

ALTER TYPE np_order_status ADD VALUE 'refunded' AFTER 'shipped';
