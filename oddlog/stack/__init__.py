"""Real Kafka and Elasticsearch as child processes of this machine, without Docker. No client of them lives here."""
