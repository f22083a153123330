"""What a person types: click commands, one noun per file, no logic.

Only the file of the command that is called is imported: `vm list` and completion must not pay for what builds images.
"""

from __future__ import annotations

from banger.cli.main import main

__all__ = ["main"]
