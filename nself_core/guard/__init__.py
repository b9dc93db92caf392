"""The guard of the live API: what Hasura's metadata needs of the database, checked inside the transaction."""
