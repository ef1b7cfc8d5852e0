"""Pictures and files made from a result."""
