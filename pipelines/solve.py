"""Searching benchmark problems in Ray actors: a policy and a value engine in one process, many problems at a time.

In: rows (problem_id, problem, answer, explorer). Out: rows of `searches`. A problem that fails is a row with its error.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from vgs_ray.config import Recipe
from vgs_ray.engines import build_policy, build_value
from vgs_ray.evaluate.methods import Leaf
from vgs_ray.grade import Verdict, extract_answer
from vgs_ray.ids import stable_seed
from vgs_ray.judge import Judge
from vgs_ray.prompts import load_tokenizer, prompt_tokens, text_of
from vgs_ray.sandbox import model_path
from vgs_ray.schemas import SEARCHES
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.select import classes
from vgs_ray.search.tree import Tree


class Solve:
    """An actor that searches; the engines batch over its problems."""

    def __init__(self, recipe: Recipe, value_model: str) -> None:
        self.recipe, self.config = recipe, recipe.evaluate
        model = model_path(recipe.roll_out.model)
        self.tokenizer = load_tokenizer(model)
        self.policy = build_policy(model, self.config.policy_engine)
        self.value = build_value(value_model, self.config.value_engine)
        self.judge = Judge(workers=1, timeout_s=recipe.verify.timeout_s, memory_gib=recipe.verify.memory_gib)
        self.judging = asyncio.Lock()  # its pipes take one batch at a time
        self.slots = asyncio.Semaphore(self.config.concurrent)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = await asyncio.gather(*(self._row(**row) for row in batch.to_pylist()))
        return pa.Table.from_pylist(list(rows), schema=SEARCHES)

    async def _row(self, search_id: str, problem_id: str, problem: str, answer: str, explorer: str) -> dict[str, Any]:
        row: dict[str, Any] = {"search_id": search_id, "problem_id": problem_id, "explorer": explorer, "gold": answer}
        async with self.slots:
            started = time.perf_counter()
            try:
                tree = await self._search(problem, problem_id, explorer)
            except ValueError as error:  # such as a prompt that is longer than the context
                return row | {"tree": None, "leaves": "[]", "seconds": 0.0, "error": str(error)}
            seconds = time.perf_counter() - started
        leaves = [asdict(leaf) for leaf in await self._leaves(tree, answer)]
        return row | {"tree": json.dumps(tree.to_json()), "leaves": json.dumps(leaves), "seconds": seconds, "error": None}

    async def _search(self, problem: str, problem_id: str, explorer: str) -> Tree:
        prompt = prompt_tokens(self.tokenizer, problem, self.recipe.instruction)
        seed = stable_seed(self.recipe.seed, problem_id, explorer)
        shared: dict[str, Any] = {"sampling": self.config.sampling, "seed": seed}
        if explorer == "sample":
            return await sample(self.policy, self.value, prompt, count=self.config.samples, **shared)
        return await beam(self.policy, self.value, prompt, beam=self.config.beam, **shared)

    async def _leaves(self, tree: Tree, gold: str) -> list[Leaf]:
        """Grade the leaves and put their answers into classes, with the judge's time limit on every comparison."""
        found = tree.leaves()
        texts = [text_of(self.tokenizer, tree.path(node.id)) for node in found]
        answers = [
            extract_answer(text) if node.state == "finished" else None for node, text in zip(found, texts, strict=True)
        ]
        async with self.judging:
            verdicts, class_of = await asyncio.to_thread(self._judge, gold, answers)
        return [
            Leaf(node.id, node.group, answer, verdict.outcome, verdict.reason, each, node.value)
            for node, answer, verdict, each in zip(found, answers, verdicts, class_of, strict=True)
        ]

    def _judge(self, gold: str, answers: list[str | None]) -> tuple[list[Verdict], list[int]]:
        return judge_answers(self.judge, gold, answers)


def judge_answers(judge: Judge, gold: str, answers: list[str | None]) -> tuple[list[Verdict], list[int]]:
    """A verdict for each answer, and the number of its class of equal answers (-1: none)."""
    compared = judge.judge_pairs((gold, answer) for answer in answers if answer is not None)
    grouped = classes(answers, lambda first, other: judge.equivalent_pairs([(first, other)])[first, other] is True)
    class_of = [-1] * len(answers)
    for number, members in enumerate(grouped):
        for member in members:
            class_of[member] = number
    no_answer = Verdict("incomplete", "no_answer", None)
    outcomes = {True: "correct", False: "incorrect", None: "unknown"}
    verdicts = [
        no_answer
        if answer is None
        else Verdict(outcomes[compared[gold, answer].equivalent], compared[gold, answer].reason, answer)
        for answer in answers
    ]
    return verdicts, class_of
