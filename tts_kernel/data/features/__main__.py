"""python -m tts_kernel.data.features pack | check | compact DATA"""

from tts_kernel.data.features.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
