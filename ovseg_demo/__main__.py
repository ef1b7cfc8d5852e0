import sys

from ovseg_demo.cli import main

sys.exit(main())
