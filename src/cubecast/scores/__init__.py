"""Verification by lead time: sums that pool exactly over chunks of cases, scores from them, and a table."""

from cubecast.scores.bootstrap import intervals
from cubecast.scores.cases import SYSTEM, common_mask, verify_forecasts
from cubecast.scores.similarity import structural_similarity
from cubecast.scores.statistics import Statistics, case_dim, join_cases, over_cases, pool, scores_from, statistics
from cubecast.scores.table import SCORES, Score, explain, score_columns, to_table

__all__ = [
    "SCORES",
    "SYSTEM",
    "Score",
    "Statistics",
    "case_dim",
    "common_mask",
    "explain",
    "intervals",
    "join_cases",
    "over_cases",
    "pool",
    "score_columns",
    "scores_from",
    "statistics",
    "structural_similarity",
    "to_table",
    "verify_forecasts",
]
