"""Class-agnostic mask proposals."""
