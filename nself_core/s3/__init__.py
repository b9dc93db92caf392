"""An S3 object store, on the HTTP client and the standard library alone.

account says which bucket and by which keys; signing makes a request's signature; answers reads what the server says;
client asks, again where that helps; store holds the verbs of objects; multipart sends streams of any length; download
fetches objects in pieces.
"""
