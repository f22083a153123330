"""What was left in the middle by somebody who was killed goes with the next; what somebody works in stays."""

from __future__ import annotations

from pathlib import Path

from banger.workspace.scratch import scratch_folder


def test_what_a_dead_process_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".scratch/left"
    left.mkdir(parents=True)
    (left / "pack").write_bytes(b"half")
    with scratch_folder(tmp_path) as one:
        assert not left.exists()
        with scratch_folder(tmp_path) as other:
            assert one.is_dir()
            assert other != one
    assert list((tmp_path / ".scratch").iterdir()) == []
