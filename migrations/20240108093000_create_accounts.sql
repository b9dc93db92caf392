-- Accounts, and the two functions every later table leans on.

CREATE FUNCTION np_set_updated_at() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION np_set_updated_at() IS 'Trigger: stamps updated_at on every change of a row.';

-- The letters are mapped by hand, because the unaccent extension is not on every host.
CREATE FUNCTION np_slugify(title TEXT) RETURNS TEXT
    LANGUAGE sql
    IMMUTABLE STRICT PARALLEL SAFE
AS $function$
    SELECT trim(BOTH '-' FROM regexp_replace(
        lower(translate(
            replace(replace(replace(title, 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe'),
            'ÀÁÂÃÄÅÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝàáâãäåçèéêëìíîïñòóôõöøùúûüýÿ''’',
            'AAAAAACEEEEIIIINOOOOOOUUUUYaaaaaaceeeeiiiinoooooouuuuyy'
        )),
        '[^a-z0-9]+', '-', 'g'
    ))
$function$;

COMMENT ON FUNCTION np_slugify(TEXT) IS
    'A title as it stands in a URL: lower case, ASCII letters and digits, single hyphens.';

CREATE TYPE np_account_status AS ENUM ('invited', 'active', 'suspended');

CREATE TABLE np_accounts (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    email TEXT NOT NULL,
    handle TEXT,
    display_name TEXT NOT NULL,
    status np_account_status NOT NULL DEFAULT 'active',
    bio TEXT NOT NULL DEFAULT '',
    last_seen_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT np_accounts_email_check CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    CONSTRAINT np_accounts_handle_check CHECK (handle ~ '^[a-z0-9](-?[a-z0-9])*$')
);

-- An address is one account whatever its case, but each app of the deployment has its own accounts.
CREATE UNIQUE INDEX np_accounts_email_key ON np_accounts (source_account_id, lower(email));

CREATE TRIGGER np_accounts_set_updated_at
    BEFORE UPDATE ON np_accounts
    FOR EACH ROW EXECUTE FUNCTION np_set_updated_at();

COMMENT ON TABLE np_accounts IS 'People who sign in. The auth service writes the rows; the app reads them.';
COMMENT ON COLUMN np_accounts.source_account_id IS
    'Which app of a shared deployment the row belongs to. Not a customer: that is tenant_id.';
