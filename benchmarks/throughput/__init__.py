"""How many events a second go from Kafka, scored, into Elasticsearch: the product beside four others, in one run.

`sides.py` lists who runs, `rounds.py` measures one of them from outside, `report.py` prints; the sides that are not
the product are programs: `constant.py`, `bare.py`, `naive.py`, and `quix.py` in an environment of its own.
"""
