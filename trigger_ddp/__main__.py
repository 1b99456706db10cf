"""``python -m trigger_ddp``: the same as the ``trigger-ddp`` command."""

import sys

from trigger_ddp.cli import main

sys.exit(main())
