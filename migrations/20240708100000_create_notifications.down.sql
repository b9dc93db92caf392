DROP TRIGGER np_comments_notify ON np_comments;
DROP FUNCTION np_notify_of_comment();
DROP TABLE np_notifications;
DROP TABLE np_notification_kinds;
