"""The other side of the wire: load for a server, and what it answered."""
