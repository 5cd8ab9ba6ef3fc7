"""``python -m tests.checkpoints``: write the golden checkpoints of this version."""

from tests.checkpoints import main


main()
