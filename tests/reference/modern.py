"""Small modern gains."""
