"""Which build of the program this is; read once from the installed distribution."""

from importlib.metadata import version
from typing import Final

BUILD: Final = version("rackmesh")
