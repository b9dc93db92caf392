ALTER TABLE np_accounts DROP COLUMN country_code;
DROP TABLE np_countries;
DROP TABLE np_currencies;
