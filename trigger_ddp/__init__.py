"""Live data for Meteor clients from Django models and PostgreSQL triggers.

General layout. The folders are the stages of one change's path, in the order data flows; a module
imports its own stage, earlier stages and the foundation, never a later one
(tests/test_layout.py holds the imports against this table):

    foundation    errors, conf, ejson, alea   used everywhere
    api/          DECLARE   collections, publications, methods: what an application's ddp.py says
    capture/      TRIGGER   a row change becomes a NOTIFY (text only; runs in PostgreSQL)
    changes/      CHANGE    notification payload to Change, or Gap where something was lost
    live/         QUERY     querysets to shapes, changes to deltas; owns correctness
    protocol/     DDP       messages, merge, session state; no sockets
    server/       SOCKET    the only stage with async: database access, outboxes, HTTP, WebSocket, run
    meteor/       BUNDLE    what `meteor build` made: its pages, files and versions; an app like any other
    management/, cli, demo/ commands on top of all of it
"""

__version__ = "0.1.0"
