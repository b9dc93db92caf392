"""SQL as text: quoting it, splitting a file into statements, and asking one statement what it is."""
