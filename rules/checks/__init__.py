"""Registration checks of rewrite rules on logical values."""
