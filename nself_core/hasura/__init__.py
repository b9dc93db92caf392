"""Hasura: its metadata API, and what is done with the metadata."""
