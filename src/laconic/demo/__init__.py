"""The bundled pair: a small quick model and a small slow model, their task, and their training."""

from pathlib import Path

FOLDER = Path(__file__).parent
QUICK = FOLDER / "pair" / "quick"
SLOW = FOLDER / "pair" / "slow"
