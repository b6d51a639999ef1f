import sys

from kmlp.commands.main import main

sys.exit(main())
