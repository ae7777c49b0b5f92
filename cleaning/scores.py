"""Scores that another program gave documents, `python -m evaluation.score` for one: a file of JSON lines,
{"id": ..., "score": ...}, with "source" where several sources have documents of the same id."""

import json

from configurator import UserError


class Scores:
    """A score file and the bounds that documents must keep to; a bound of None lets every score pass.

    Raises UserError for a file that is not there and for the first line that is no record of id and score."""

    def __init__(self, path, lowest=None, highest=None):
        self.lowest, self.highest = lowest, highest
        self.scores = {}  # by id, or by (source, id) where the record names a source
        number = 0
        try:
            with open(path, "rb") as lines:  # bytes: a line that is not UTF-8 fails where its number is known
                for number, line in enumerate(lines, 1):
                    record = json.loads(line)
                    key = (record["source"], record["id"]) if "source" in record else record["id"]
                    self.scores[key] = float(record["score"])
        except FileNotFoundError:
            raise UserError(f"no score file {path}: python -m evaluation.score makes one") from None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not a record of id and score ({error})") from None

    def objection(self, source, where):
        """Why a document is dropped, or None to keep it. A document without a score is dropped."""
        score = self.scores.get((source, where), self.scores.get(where))
        if score is None:
            return "no score"
        if self.lowest is not None and score < self.lowest:
            return f"score {score:.3f} < {self.lowest:g}"
        if self.highest is not None and score > self.highest:
            return f"score {score:.3f} > {self.highest:g}"
        return None
