"""Compare --deviations released with a recorded trajectory of the released code."""

import json
import shutil
from pathlib import Path

import golden
import pytest

RECORDED = Path(__file__).parent / "golden_released"


@pytest.mark.slow
def test_the_released_trajectory_is_reproduced():
    worst = golden.replay(RECORDED)
    assert {"loss_per_pass", "clip_norm", "scores", "penalty", "eval logits"} <= worst.keys()
    for quantity, (off, tolerance) in worst.items():
        assert off <= tolerance, f"{quantity} is off by {off}"


@pytest.mark.parametrize(
    ("switch", "value"),
    [
        ("lambda_clock", "steps"),
        ("clip_over", "scores"),
        ("penalty_mean", "entries"),
        ("adv_gradient", "last"),
        ("adamw", "torch"),
    ],
)
def test_each_switch_of_the_deviations_has_an_effect(switch, value, monkeypatch):
    """The paper's value of any single switch changes the trajectory."""
    arguments = golden.arguments

    def with_switch(settings):
        args = arguments(settings)
        setattr(args, switch, value)
        return args

    monkeypatch.setattr(golden, "arguments", with_switch)
    try:
        worst = golden.replay(RECORDED, stop_when_off=True)
    except SystemExit as e:
        assert "shape" in str(e)  # K + 1 passes instead of K
        return
    assert any(off > tolerance for off, tolerance in worst.values())


def test_the_command_reports_a_deviation(tmp_path, monkeypatch, capsys):
    shutil.copytree(RECORDED, tmp_path / "altered")
    path = tmp_path / "altered" / "released_trajectory.json"
    record = json.loads(path.read_text())
    record["log"] = record["log"][:3]
    record["log"][2]["clip_norm"] += 1e-3
    path.write_text(json.dumps(record))
    monkeypatch.setattr("sys.argv", ["golden.py", str(tmp_path / "altered")])
    with pytest.raises(SystemExit, match="step10"):  # the scores of the removed steps are missing
        golden.main()
    monkeypatch.setattr("sys.argv", ["golden.py", str(tmp_path)])
    assert golden.main() == 2
    assert "usage" in capsys.readouterr().err
