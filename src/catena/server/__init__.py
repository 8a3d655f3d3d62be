"""The trust service over HTTPS: routes, authentication, limits."""
