"""Where images come from: OCI layouts, registries, and the content stores of runtimes."""
