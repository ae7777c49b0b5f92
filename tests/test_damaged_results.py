"""Results of an evaluation that one wrong bit has changed."""

from test_evaluation import results_of, samples_file


def test_a_line_with_one_wrong_letter_is_made_anew(tmp_path, capsys):
    """Another word in a verdict would else stand in the results for ever, and another name end in a traceback."""
    samples = samples_file(tmp_path, ["    return x", "    return y"] * 3)
    first = results_of(tmp_path, samples, tmp_path / "out")
    path = tmp_path / "out/results.jsonl"
    for right, wrong in (("failed", "fained"), ('"passed": true', '"passee": true'), ('"key"', '"kez"')):
        path.write_text(path.read_text().replace(right, wrong, 1))
        assert results_of(tmp_path, samples, tmp_path / "out") == first
        assert f"1 lines of {path} are damaged" in capsys.readouterr().out


def test_a_line_that_is_no_record_any_more_is_made_anew(tmp_path, capsys):
    """A wrong bit may as well stand in a bracket or within a character, or be a line end."""
    samples = samples_file(tmp_path, ["    return x", "    return y"] * 3)
    first = results_of(tmp_path, samples, tmp_path / "out")
    path = tmp_path / "out/results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in (b"[" + lines[1][1:], lines[1].replace(b"y", b"\xf9", 1), b"7\n", b"[" * 10**5 + b"\n"):
        path.write_bytes(b"".join([lines[0], damaged, *lines[2:]]))
        assert results_of(tmp_path, samples, tmp_path / "out") == first
        assert f"1 lines of {path} are damaged" in capsys.readouterr().out
    path.write_bytes(b"".join([lines[0], lines[1][:9] + b"\n" + lines[1][10:], *lines[2:]]))
    assert results_of(tmp_path, samples, tmp_path / "out") == first
    assert f"2 lines of {path} are damaged" in capsys.readouterr().out
