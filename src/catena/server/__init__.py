"""The trust service over HTTPS: routes, authentication, configuration. Decides nothing."""
