"""The standard-library core of nself-db: every room below the face."""

__version__ = "0.1.0"
