"""What the trackers, the host's own logs and the terminal get of the mixture."""

import json

import pytest

from tests.integration.support import arguments, finish, our_log, same_domains, start, train, write_yaml

pytestmark = pytest.mark.integration


def series(finished):
    return [line for line in finished.trainer.state.log_history if any(key.startswith("dids/") for key in line)]


def test_each_update_is_logged_with_the_numbers_of_the_mixture_log(finished):
    logged = series(finished)
    assert [line["step"] for line in logged] == [line["step"] for line in finished.lines]
    for found, line in zip(logged, finished.lines, strict=True):
        for domain, p in line["probabilities"].items():
            assert found[f"dids/p/{domain}"] == pytest.approx(p)
        for task, loss in line["task_loss"].items():
            assert found[f"dids/loss/{task}"] == pytest.approx(loss)
        for domain, impacts in line["impact"].items():
            for task, value in impacts.items():
                assert found[f"dids/impact/{task}/{domain}"] == pytest.approx(value)
    assert not any("impact" in key for key in logged[0]) and any("impact" in key for key in logged[1])


def test_the_hosts_losses_are_logged_at_the_steps_that_they_always_were(finished):
    history = finished.trainer.state.log_history
    assert [line["step"] for line in history if "loss" in line] == [4, 8, 12, 16, 20, 24]
    assert not any("loss" in line and any(key.startswith("dids/") for key in line) for line in history)
    written = [json.loads(line) for line in (finished.folder / "trainer_log.jsonl").read_text().splitlines()]
    assert [line["current_steps"] for line in written if "loss" in line] == [4, 8, 12, 16, 20, 24]
    assert not any(key.startswith("dids/") for line in written for key in line)


def test_plot_loss_and_a_tracker_work_beside_it_and_the_terminal_has_the_table_alone(world, finished, tmp_path, capsys):
    from transformers import TrainerCallback

    class Tracker(TrainerCallback):
        """As those of TensorBoard, W&B, SwanLab, MLflow and trackio: it is told what the trainer logs."""

        logs: list = []

        def on_log(self, args, state, control, logs=None, **_):
            self.logs.append((state.global_step, dict(logs)))

    changes = {"max_steps": 8, "plot_loss": True, "disable_tqdm": False, **same_domains(finished)}
    with our_log() as messages:
        ran = train(arguments(world, tmp_path, **changes), [Tracker()])
    told = [step for step, logs in Tracker.logs if any(key.startswith("dids/p/") for key in logs)]
    assert told == [0, 4, 8]
    assert (ran.folder / "training_loss.png").exists()
    printed = "".join(capsys.readouterr())
    assert "'dids/" not in printed and "'loss'" in printed
    tables = [message for message in messages if message.startswith("dids: update ")]
    assert [table.split(" after ")[0] for table in tables] == ["dids: update 1 of 1"]
    (closing,) = [message for message in messages if message.startswith("dids: after the last step")]
    for table, line in ((tables[0], ran.lines[1]), (closing, ran.lines[2])):
        assert all(f"{loss:.4f}" in table for loss in line["task_loss"].values())


def test_the_table_is_quiet_when_the_host_is_told_to_be(world, finished, tmp_path):
    """Without that it is printed: test_strategies.py."""
    values = arguments(world, tmp_path, max_steps=5, **same_domains(finished))
    path = write_yaml(tmp_path / "run.yaml", values)
    code, stdout, stderr = finish(start(["llamafactory-cli", "train", str(path)], LLAMAFACTORY_VERBOSITY="WARN"))
    assert code == 0, stderr[-2000:]
    assert "dids: update" not in stdout + stderr
