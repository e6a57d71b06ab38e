"""At which training stage, in what dose and in what order code data helps a model reason."""

__version__ = "0.1.0"
