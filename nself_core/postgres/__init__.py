"""What may be asked of Postgres: sessions over three transports, its client tools, and a private embedded server."""
