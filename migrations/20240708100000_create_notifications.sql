-- Notifications: a comment tells the post's author, a reply tells the comment's author.

-- value and comment are the two columns Hasura wants of a table that it offers as a GraphQL enum.
CREATE TABLE np_notification_kinds (
    value TEXT PRIMARY KEY CHECK (value ~ '^[a-z][a-z_]*$'),
    comment TEXT NOT NULL
);

INSERT INTO np_notification_kinds (value, comment) VALUES
    ('comment_added', 'Somebody commented on your post; it''s open for replies.'),
    ('reply_added', 'Somebody answered your comment.'),
    ('order_paid', 'An order was paid.'),
    ('system', 'A word from the people who run the app.');

CREATE TABLE np_notifications (
    id BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    source_account_id TEXT NOT NULL DEFAULT 'primary',
    tenant_id UUID REFERENCES np_tenants (id) ON DELETE CASCADE,
    account_id UUID NOT NULL REFERENCES np_accounts (id) ON DELETE CASCADE,
    actor_id UUID REFERENCES np_accounts (id) ON DELETE SET NULL,
    kind TEXT NOT NULL REFERENCES np_notification_kinds (value),
    comment_id UUID REFERENCES np_comments (id) ON DELETE CASCADE,
    payload JSONB NOT NULL DEFAULT '{}',
    read_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT np_notifications_not_to_oneself CHECK (account_id <> actor_id)
);

CREATE INDEX np_notifications_unread_idx ON np_notifications (account_id, created_at DESC) WHERE read_at IS NULL;
CREATE INDEX np_notifications_account_id_idx ON np_notifications (account_id);
CREATE INDEX np_notifications_actor_id_idx ON np_notifications (actor_id);
CREATE INDEX np_notifications_comment_id_idx ON np_notifications (comment_id);

CREATE FUNCTION np_notify_of_comment() RETURNS trigger
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    recipient UUID;
    title TEXT;
BEGIN
    SELECT COALESCE(parent.author_id, post.author_id), post.title
    INTO recipient, title
    FROM public.np_posts AS post
    LEFT JOIN public.np_comments AS parent ON parent.id = NEW.parent_id
    WHERE post.id = NEW.post_id;

    IF recipient <> NEW.author_id THEN
        INSERT INTO public.np_notifications
            (source_account_id, tenant_id, account_id, actor_id, kind, comment_id, payload, created_at)
        VALUES (
            NEW.source_account_id, NEW.tenant_id, recipient, NEW.author_id,
            CASE WHEN NEW.parent_id IS NULL THEN 'comment_added' ELSE 'reply_added' END,
            NEW.id, jsonb_build_object('post_id', NEW.post_id, 'title', title), NEW.created_at
        );
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER np_comments_notify
    AFTER INSERT ON np_comments
    FOR EACH ROW EXECUTE FUNCTION np_notify_of_comment();

ALTER TABLE np_notification_kinds ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_notification_kinds FORCE ROW LEVEL SECURITY;
ALTER TABLE np_notifications ENABLE ROW LEVEL SECURITY;
ALTER TABLE np_notifications FORCE ROW LEVEL SECURITY;

CREATE POLICY np_notification_kinds_read ON np_notification_kinds FOR SELECT
    USING (true);

CREATE POLICY np_notification_kinds_admin ON np_notification_kinds
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

CREATE POLICY np_notifications_app_isolation ON np_notifications AS RESTRICTIVE
    USING (source_account_id = (
        SELECT COALESCE(
            NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-source-account-id', 'primary'
        )
    ));

CREATE POLICY np_notifications_own ON np_notifications
    USING (account_id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
    ));

-- For the trigger above where the tables' owner is no superuser: who acts may write into another's inbox.
CREATE POLICY np_notifications_insert_as_actor ON np_notifications FOR INSERT
    WITH CHECK (actor_id = (
        SELECT (NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-user-id')::uuid
    ));

CREATE POLICY np_notifications_admin ON np_notifications
    USING ((SELECT NULLIF(current_setting('hasura.user', true), '')::json ->> 'x-hasura-role') = 'admin');

COMMENT ON TABLE np_notifications IS 'Each account''s inbox.';
COMMENT ON TABLE np_notification_kinds IS 'A GraphQL enum in Hasura: one row, one value.';
