DROP INDEX np_orders_refunded_idx;
DROP TABLE np_payments;
DROP FUNCTION np_settle_order();
DROP TYPE np_payment_status;
