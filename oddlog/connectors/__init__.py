"""Where client libraries are imported: Kafka and files (sources), Elasticsearch and SQLite (stores), MLflow."""
