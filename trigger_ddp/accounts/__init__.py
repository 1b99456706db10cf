"""Meteor's accounts on django.contrib.auth: put ``"trigger_ddp.accounts"`` into ``INSTALLED_APPS``.

General layout:

    hashers     passwords as Meteor's clients send them: hashed once already
    models      login tokens, tokens in mails, and what users have in Meteor and not in Django
    tokens      making, finding and sweeping them
    users       who is meant, who is made, and what a client sees of a user
    mail        the mails with links
    profile     what users may change of themselves
    hooks       what an application registers to be asked or told
    signals     what django-ddp sent
    login       from a proof of who it is to a connection that is logged in
    options     what clients may send to the methods
    ddp         the methods, the collection ``users`` and the publications
"""
