"""F5: the hub: takes updates, has them merged, publishes models (docs/adr/0010). The extra `hub` has its packages.

`place` and `settings` are the folder; `store` the database; `app` and `routes` HTTP; `uploads` and `ingest` what makes an update
durable; `merging` and `publishing` the job that turns updates into a model.
"""
