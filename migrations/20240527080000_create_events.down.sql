DROP FUNCTION np_create_events_partition(DATE);
DROP TABLE np_events;  -- and its partitions
