"""F5: the hub: takes updates, has them merged, publishes models (docs/adr/0010). The extra `hub` has its packages."""
