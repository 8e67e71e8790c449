"""python -m tts_kernel.data.extract DATA --workers 32 --limit 500000"""

from tts_kernel.data.extract.run import main

if __name__ == "__main__":
    raise SystemExit(main())
