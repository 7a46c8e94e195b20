"""The fault campaign: a seeded program that hurts every part of a running pipeline, and checks what must hold.

Properties, stated first:

1. every produced record is exactly one document or one dead letter;
2. a committed offset never ran ahead of acknowledged documents (looked at all the time, not only at the end);
3. a document's score, features and baseline belong to the model version it names;
4. features equal those of an undisturbed computation (rtol 1e-5);
5. a consumer that is at work ends by itself only when it is told 401, with exit code 3 and an error that says so;
6. when the faults are over, everything is consumed, and a backfill leaves nothing pending.

Files: `plan.py` which faults, `world.py` the parts and how each is hurt, `consumers.py` the consumers,
`stopped.py` a consumer that can be held at a stated point, `load.py` what is produced, `watch.py` property 2 and
progress, `verdict.py` the others, `run.py` all of it in order, `report.py` the table.
"""
