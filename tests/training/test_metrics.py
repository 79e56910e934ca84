import contextlib
import io
import json
import os
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import ResourceError
from vit_jax.training.report.metrics import Clock, MetricWriter, write_summary
from vit_jax.training.report.progress import Progress


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def fill(workdir, steps, **options):
    with MetricWriter(workdir, tensorboard=False, **options) as writer:
        for step in steps:
            writer.write(step, {"loss": 1.0 / step, "accuracy": np.float32(0.5)}, "train")
    return workdir / "metrics.jsonl"


def test_one_json_object_per_line_in_a_fixed_order(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(
            3, {"loss": np.float32(0.5), "accuracy": jnp.float32(0.25), "count": jnp.int32(4)}, "train"
        )
        writer.write(3, {"learning_rate": 1e-3, "skipped": False})
        text = (tmp_path / "metrics.jsonl").read_text()  # On disk before it is closed.
    assert text == (
        '{"step": 3, "train/accuracy": 0.25, "train/count": 4, "train/loss": 0.5}\n'
        '{"step": 3, "learning_rate": 0.001, "skipped": 0}\n'
    )


def test_equal_runs_write_equal_files(tmp_path):
    assert fill(tmp_path / "a", [1, 2]).read_bytes() == fill(tmp_path / "b", [1, 2]).read_bytes()


def test_what_is_not_finite_is_null_and_named(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"a": float("nan"), "b": np.float32("inf"), "c": -float("inf"), "d": 1.0})
    assert lines(tmp_path / "metrics.jsonl") == [
        {
            "step": 1,
            "a": None,
            "b": None,
            "c": None,
            "d": 1.0,
            "non_finite": {"a": "nan", "b": "inf", "c": "-inf"},
        }
    ]


def test_a_resumed_run_goes_on_where_it_was_saved(tmp_path):
    path = fill(tmp_path, [1, 2, 3, 4])
    with path.open("a") as file:
        file.write('{"step": 2, "cut o')
    fill(tmp_path, [3, 4, 5], resumed_step=2)
    assert path.read_bytes() == fill(tmp_path / "uninterrupted", [1, 2, 3, 4, 5]).read_bytes()


def test_lines_that_are_no_lines_of_ours_are_cut_and_a_new_run_begins_anew(tmp_path):
    path = fill(tmp_path, [1])
    with path.open("ab") as file:
        file.write(b'\xff\xfe\n[]\n3\n{"no": "step"}\n{"step": "x"}\n')
    fill(tmp_path, [2], resumed_step=1)
    assert [line["step"] for line in lines(path)] == [1, 2]
    fill(tmp_path, [7])
    assert [line["step"] for line in lines(path)] == [7]


def test_only_one_process_writes(tmp_path):
    with MetricWriter(tmp_path / "run", enabled=False) as writer:
        writer.write(1, {"loss": 1.0})
    assert not (tmp_path / "run").exists()


def events(directory):
    """Return the bytes of all records of all TensorBoard files: length, checksum, record, checksum."""
    records = []
    for path in sorted(directory.iterdir()):
        content, position = path.read_bytes(), 0
        while position < len(content):
            (size,) = struct.unpack_from("<Q", content, position)
            records.append(content[position + 12 : position + 12 + size])
            position += size + 16
    return records


def test_tensorboard_events(tmp_path, caplog):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, {"loss": 0.5, "odd": float("nan")}, "train")
        writer.write(2, {"loss": 0.25}, "train")
    assert caplog.records == []  # tensorboardX warns of what is not finite
    written = events(tmp_path / "tensorboard")
    assert not any(b"train/odd" in record for record in written)
    records = [record for record in written if b"train/loss" in record]
    assert [struct.pack("<f", value) in record for record, value in zip(records, (0.5, 0.25))] == [True, True]


def test_a_summary_is_whole_or_not_there(tmp_path, monkeypatch):
    path = write_summary(tmp_path / "run", {"step": 3, "seconds": {"step": 1.5, "other": float("inf")}})
    expected = {"step": 3, "seconds": {"step": 1.5, "other": None, "non_finite": {"other": "inf"}}}
    assert lines_of_object(path) == expected

    def fail(*_):
        raise OSError(28, "full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ResourceError, match=r"summary\.json.* No space left"):
        write_summary(tmp_path / "run", {"step": 4})
    assert lines_of_object(path) == expected


def lines_of_object(path):
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"metrics\.jsonl cannot be written"):
        MetricWriter(tmp_path / "file")
    with pytest.raises(ResourceError, match=r"summary\.json cannot be written"):
        write_summary(tmp_path / "file", {})


class Timer:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_clock_divides_all_of_the_time():
    timer = Timer()
    clock = Clock(timer)
    timer.now += 1
    with clock("step"):
        timer.now += 2
        with clock("data_wait"):
            timer.now += 4
        timer.now += 8
    timer.now += 16
    with contextlib.suppress(KeyError), clock("compile"):
        timer.now += 32
        raise KeyError
    assert clock.seconds() == {
        "startup": 0,
        "restore": 0,
        "compile": 32,
        "data_wait": 4,
        "step": 10,
        "evaluation": 0,
        "checkpoint": 0,
        "other": 17,
    }
    timer.now += 1
    assert clock.total() == 64
    with pytest.raises(ValueError, match="nonsense"), clock("nonsense"):
        pass
    assert Clock(timer, begun=timer.now - 3).seconds()["startup"] == 3


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal():
    timer, stream = Timer(), io.StringIO()
    with Progress(100, images_per_step=64, stream=stream, timer=timer) as progress:
        for step in range(1, 11):
            progress.advance(step)
        timer.now += 5
        assert progress.log(10, {"loss": 0.123456, "accuracy": 1.0}) == 128
        progress.write("evaluated")
        timer.now += 100
        progress.skip_time()
        timer.now += 1
        assert progress.log(20, {}) == 640
    assert stream.getvalue().splitlines() == [
        "step 10/100  loss 0.1235  accuracy 1  images/s 128  left 00:45",
        "evaluated",
        "step 20/100  images/s 640  left 00:08",
    ]


def test_a_line_after_the_first_step_and_now_and_then():
    timer, stream = Timer(), io.StringIO()
    losses = iter([{}, {"loss": 2.0}, {"loss": 1.0}, {"loss": 0.5}])
    with Progress(100, images_per_step=64, stream=stream, timer=timer) as progress:
        for step in range(1, 71):
            timer.now += 1
            progress.glance(step, lambda: next(losses))
            if step == 30:
                progress.log(30, {"loss": 1.5})
    assert stream.getvalue().splitlines() == [
        "step 2/100  loss 2",  # nothing was known after the first call, and no time of a step
        "step 30/100  loss 1.5  images/s 64  left 01:10",
        "step 60/100  loss 1  images/s 64  left 00:40",
    ]


def test_a_bar_shows_the_loss_from_the_first_steps():
    timer, stream = Timer(), Terminal()
    losses = iter([{"loss": 2.25}, {"loss": 2.125}])
    with Progress(100, images_per_step=8, stream=stream, timer=timer) as progress:
        for step, wait in enumerate((5.0, 0.01, 0.3), 1):
            timer.now += wait
            progress.glance(step, lambda: next(losses))
        assert next(losses, None) is None  # looked at twice, not at every step
        assert "loss=2.25" in stream.getvalue()
        assert "loss=2.12" in stream.getvalue()
        progress.log(4, {"loss": 1.5})
        timer.now += 100
        progress.glance(5, lambda: pytest.fail("the bar keeps what was logged"))
    assert "loss=1.5" in stream.getvalue()


def test_a_bar_on_a_terminal_starts_where_the_run_resumes():
    stream = Terminal()
    with Progress(100, step=40, images_per_step=8, stream=stream) as progress:
        progress.advance(50)
        progress.log(50, {"loss": 0.5})
        progress.write("evaluated")
    assert "50/100" in stream.getvalue()
    assert "loss=0.5" in stream.getvalue()
    assert "evaluated\n" in stream.getvalue()


def test_no_bar_if_it_is_not_wanted_and_nothing_if_disabled():
    stream = Terminal()
    with Progress(10, images_per_step=8, bar=False, stream=stream) as progress:
        progress.log(5, {"loss": 0.5})
    assert stream.getvalue().startswith("step 5/10  loss 0.5  images/s ")
    stream = Terminal()
    with Progress(10, images_per_step=8, enabled=False, stream=stream) as progress:
        progress.advance(5)
        progress.log(5, {"loss": 0.5})
        progress.write("evaluated")
    assert stream.getvalue() == ""


def test_no_time_gives_no_division_by_zero():
    stream = io.StringIO()
    progress = Progress(10, images_per_step=8, stream=stream, timer=Timer())
    assert progress.log(1, {}) == 0
    assert stream.getvalue() == "step 1/10  images/s 0  left ?\n"


def test_lines_wait_while_the_workdir_is_away(tmp_path, caplog):
    workdir, hidden, staging = tmp_path / "run", tmp_path / "hidden", tmp_path / "local"

    def write(away, **options):
        with MetricWriter(workdir, tensorboard=True, **options) as writer:
            writer.write(1, {"loss": 1.0}, "train")
            if away:
                workdir.rename(hidden)
            writer.write(2, {"loss": 2.0}, "train")
            writer.write(3, {"loss": 3.0}, "train")
            if away:
                # Half a line, as a connection that was lost in writing leaves it.
                with (hidden / "metrics.jsonl").open("a") as file:
                    file.write('{"step": 2, "tra')
                hidden.rename(workdir)
            writer.write(4, {"loss": 4.0}, "train")
        return (workdir / "metrics.jsonl").read_bytes()

    expected = write(away=False)
    assert write(away=True, staging=staging) == expected
    assert list((workdir / "tensorboard").glob("events*"))
    assert not caplog.records
    with MetricWriter(workdir, tensorboard=True, resumed_step=4, staging=staging) as writer:
        workdir.rename(hidden)
        writer.write(5, {"loss": 5.0})
    assert "its last 1 lines are lost" in caplog.text
    assert "event files remain in" in caplog.text
    assert not workdir.exists()
