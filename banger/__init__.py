"""banger: throw-away Linux machines with one command."""

__version__ = "0.1.0"
