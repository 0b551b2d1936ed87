"""Op annotations, rewrite rules and the saturation engine."""
