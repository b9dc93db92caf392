DROP TABLE np_accounts;
DROP TYPE np_account_status;
DROP FUNCTION np_slugify(TEXT);
DROP FUNCTION np_set_updated_at();
