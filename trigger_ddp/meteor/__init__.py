"""What `meteor build` makes, served by Django: put ``"trigger_ddp.meteor"`` into ``INSTALLED_APPS``.

General layout:

    bundle        star.json and the web programs' program.json as frozen values; the versions of a program
    shelf         the bundles of this process, each read again when it has changed on disk
    browsers      which of the programs a browser gets
    environment   METEOR_SETTINGS and METEOR_PUBLIC_ENVS, from Django's settings, the environment and the view
    boilerplate   the page that loads a program, and its runtime configuration
    modules       the sources of modules that a client imports when it needs them
    files         a file of the bundle as an answer, or a part of one
    views         MeteorView, which serves all this
    discovery     the MeteorViews that the project's urls have
    autoupdate    the documents by which clients learn of a new version
    ddp           the publication of these documents, and what notices a new version
"""
