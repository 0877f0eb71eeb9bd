"""The CLI of Cropduster and its Python client: `client.api.Client`. Imports nothing, so that `--help` stays quick."""
