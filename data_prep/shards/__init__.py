"""Clips -> tars, records and the manifest that describes them."""
