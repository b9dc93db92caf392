DROP TABLE nself_sample_dashboard_widgets;
DROP TYPE nself_sample_widget;
DROP FUNCTION np_refresh_daily_sales();
DROP MATERIALIZED VIEW np_daily_sales;
DROP VIEW np_published_posts;
