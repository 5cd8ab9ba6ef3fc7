"""Other libraries; each is imported by its module here, and only then."""
