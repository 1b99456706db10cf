"""django-ddp's signals, which are sent beside Django's own, such as ``user_logged_in``.

All are sent with ``request``: an `HttpRequest` that has the client's address and headers in its ``META``.
"""

from django.dispatch import Signal

#: A client wants an account. Arguments: request, params (the options of createUser, without the password).
#: The first receiver that returns a user has made the account; otherwise it is made as usual.
create_user = Signal()

#: Arguments: request, user.
password_changed = Signal()

#: A link is about to be mailed. Arguments: request, user, token, expiry_date. A receiver that returns True
#: has mailed it itself.
forgot_password = Signal()

#: A password was reset by a link. Arguments: request, user.
password_reset = Signal()
