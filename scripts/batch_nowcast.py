"""Write one forecast for every reference time in an archive: ``cubecast batch``, from a checkout.

    python scripts/batch_nowcast.py 'radar/*.nc' --model model -o nowcasts --start 2017-05-09 --every 3

Run it again to go on: what is there and complete is skipped. What fails is listed in nowcasts/report.json, and the exit
code is then 1; the codes 2, 3 and 4 are those of the cubecast command.
"""

import sys

from cubecast.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["batch", *sys.argv[1:]]))
