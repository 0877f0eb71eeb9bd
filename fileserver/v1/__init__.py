"""The wire: generated from proto/fileserver/v1 by proto/generate.py."""
