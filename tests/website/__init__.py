"""The tests' project as a website: admin, sessions, static files, views that say how they are served."""
