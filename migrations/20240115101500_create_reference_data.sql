-- Reference data that changes with the code, so it lives in a migration and not in a seed.

CREATE TABLE np_currencies (
    code TEXT PRIMARY KEY CHECK (code ~ '^[A-Z]{3}$'),
    name TEXT NOT NULL,
    symbol TEXT,
    minor_units SMALLINT NOT NULL DEFAULT 2 CHECK (minor_units BETWEEN 0 AND 4)
);

COMMENT ON TABLE np_currencies IS 'ISO 4217. Amounts elsewhere are whole minor units (cents).';

COPY np_currencies (code, name, symbol, minor_units) FROM stdin;
CHF	Swiss franc	\N	2
EUR	Euro	€	2
GBP	Pound sterling	£	2
JPY	Yen	¥	0
KWD	Kuwaiti dinar	\N	3
SEK	Swedish krona	kr	2
USD	US dollar	$	2
XOF	CFA franc BCEAO	F CFA	0
\.

CREATE TABLE np_countries (
    code TEXT PRIMARY KEY CHECK (code ~ '^[A-Z]{2}$'),
    name TEXT NOT NULL UNIQUE,
    currency_code TEXT NOT NULL REFERENCES np_currencies (code)
);

COMMENT ON TABLE np_countries IS 'ISO 3166-1 alpha-2, the countries we ship to.';

COPY np_countries (code, name, currency_code) FROM stdin;
AT	Austria	EUR
CH	Switzerland	CHF
CI	Côte d'Ivoire	XOF
DE	Germany	EUR
FR	France	EUR
GB	United Kingdom of Great Britain and Northern Ireland	GBP
JP	Japan	JPY
KW	Kuwait	KWD
PT	Portugal	EUR
SE	Sweden	SEK
US	United States of America	USD
VG	Virgin Islands, British	USD
\.

ALTER TABLE np_accounts
    ADD COLUMN country_code TEXT REFERENCES np_countries (code);
