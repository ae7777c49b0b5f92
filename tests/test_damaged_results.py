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
