"""Several validation sets: a curve for each, and one of all of them, which decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from trainer_run import run_trainer

from local_backend import job_dir as names

CONTRARY = [tiny.pair(record["prompt"], "Nobody knows where it went.") for record in tiny.pairs(3)]


def test_each_set_has_a_curve_and_the_mean_over_all_tokens_decides(
    tiny_model: Path, tmp_path: Path
) -> None:
    same, data = tiny.pairs(6), {"train": tiny.pairs(8)}
    sets = data | {"validation-same": same, "validation-contrary": CONTRARY}
    settings = {"batchSize": 4, "epochCount": 3, "learningRate": 0.03}
    folder = tiny.write_job_dir(tmp_path / "sets", tiny_model, sets, **settings)
    run = run_trainer(folder)
    assert run.status == "Completed", run.log
    merged = tiny.write_job_dir(
        tmp_path / "one", tiny_model, data | {"validation": [*same, *CONTRARY]}, **settings
    )
    one = run_trainer(merged)
    points = run.curve_points("validation")
    combined = [p["loss"] for p in points if "validationSet" not in p]
    of_one = [p["loss"] for p in one.curve_points("validation")]
    assert combined == pytest.approx(of_one, rel=1e-4)
    assert len(combined) == 3
    by_set = {
        name: [p["loss"] for p in points if p.get("validationSet") == name]
        for name in ("same", "contrary")
    }
    assert [len(losses) for losses in by_set.values()] == [3, 3]
    assert by_set["same"][-1] < by_set["contrary"][-1]
    result = json.loads((folder / "artifacts" / "result.json").read_text())
    best = result["summary"]["tuned"]["step"]
    at_best = {
        p["validationSet"]: p["loss"]
        for p in points
        if p["step"] + 1 == best and "validationSet" in p
    }
    losses = {m["validationSet"]: m["validationLoss"] for m in result["validationMetrics"]}
    assert losses == at_best == result["summary"]["tuned"]["validationSets"]
    assert set(result["summary"]["base"]["validationSets"]) == {"same", "contrary"}
    assert result["summary"]["validationSets"]["same"]["records"] == 6
    for name, curve in [*by_set.items(), ("", combined)]:
        path = Path(names.VALIDATION_CSV)
        _, *rows = run.rows(str(path.parent / name / path.name))
        assert [float(row[2]) for row in rows] == curve
