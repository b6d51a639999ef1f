import sys

from kmlp.cli import main

sys.exit(main())
