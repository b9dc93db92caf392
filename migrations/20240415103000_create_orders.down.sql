DROP FUNCTION np_order_item_count(np_orders);
DROP TABLE np_order_items;
DROP FUNCTION np_price_order_item();
DROP FUNCTION np_refresh_order_total();
DROP FUNCTION np_order_total(UUID);
DROP TABLE np_orders;  -- and with it the sequence it owns
DROP TYPE np_order_status;
