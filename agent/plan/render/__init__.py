"""One module a backend: each writes a RedirectPlan down in its backend's own text. No IO."""
