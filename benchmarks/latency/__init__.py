"""How long an event takes from its producer until Elasticsearch has acknowledged its scored document.

`noted.py` is the consumer, which notes when each document is acknowledged.
"""
