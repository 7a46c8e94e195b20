"""The BentoML service, the HTTP client of it, and the enrichment consumer with its backfill."""
