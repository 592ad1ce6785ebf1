"""Train the sandbox policies from scratch on responses of the sandbox world.

Out: `{out}/ref` and `{out}/weak` (Hugging Face folders with tokenizer) and `{out}/TRAINING.json` with their training settings and
checksums. Takes about 12 minutes on two cores:
`python -m vgs_ray.sandbox.train_policy --out vgs_ray/sandbox/policies --seed 0`
"""

import argparse
import datetime
import hashlib
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from vgs_ray.sandbox.tokenizer import ASSISTANT, EOS, THINK, USER, build_tokenizer
from vgs_ray.sandbox.world import FLAWLESS, REFERENCE, WEAK, Skill, draw_problem, write_response

BATCH = 64
POOL = 16  # batches sorted by length together, so that padding stays small
LONGEST_RESPONSE = 192
IGNORED = -100
NOTICING_WEIGHT = 5.0
Batch = tuple[torch.Tensor, torch.Tensor]


def new_policy(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """An untrained policy of about 0.5M parameters."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return Qwen2ForCausalLM(config)


def deepened(policy: Qwen2ForCausalLM, layers: int) -> Qwen2ForCausalLM:
    """The policy with additional layers that do not change its output yet.

    To notice a slip, the policy needs a layer above the one that computes the correct result, and another layer to remember the
    slip.
    """
    config = Qwen2Config(**policy.config.to_dict() | {"layer_types": None})
    config.num_hidden_layers += layers
    config.layer_types = ["full_attention"] * config.num_hidden_layers
    deeper = Qwen2ForCausalLM(config)
    deeper.load_state_dict(policy.state_dict(), strict=False)
    with torch.no_grad():
        for layer in deeper.model.layers[len(deeper.model.layers) - layers :]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return deeper


def _pair(skill: Skill, rng: random.Random) -> tuple[str, str]:
    """Draw a prompt and a response. An endless response has no end-of-text token."""
    problem = draw_problem(rng)
    while problem.split != "train":
        problem = draw_problem(rng)
    response, boxed = write_response(problem, skill, rng)
    return f"{USER}{problem.text}{ASSISTANT}{THINK}", response + ("" if boxed is None else EOS)


def _collate(rows: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    """Pad a batch on the right. Only response tokens have labels."""
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    inputs = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        inputs[index, :end] = torch.tensor(prompt + response)
        labels[index, len(prompt) : end] = torch.tensor(response)
    return inputs, labels


def batches(tokenizer: PreTrainedTokenizerFast, skill: Skill, rng: random.Random) -> Iterator[Batch]:
    """An endless stream of batches."""
    encode = tokenizer.backend_tokenizer.encode_batch
    while True:
        pairs = [_pair(skill, rng) for _ in range(BATCH * POOL)]
        prompts = [encoding.ids for encoding in encode([prompt for prompt, _ in pairs])]
        responses = [encoding.ids[:LONGEST_RESPONSE] for encoding in encode([response for _, response in pairs])]
        rows = sorted(zip(prompts, responses, strict=True), key=lambda row: len(row[0]) + len(row[1]))
        starts = list(range(0, len(rows), BATCH))
        rng.shuffle(starts)
        for start in starts:
            yield _collate(rows[start : start + BATCH], tokenizer.pad_token_id)


def _loss(policy: Qwen2ForCausalLM, batch: Batch, equals: int) -> torch.Tensor:
    """Mean cross-entropy of the response tokens. With causal attention, right padding needs no mask.

    Tokens after a result have a larger weight: one token in eight decides there whether a slip is noticed, and the policy learns
    it last. The weight depends on the position and not on the token, so the policy still learns the probabilities of the world.
    """
    inputs, labels = batch
    hidden = policy.model(input_ids=inputs[:, :-1], use_cache=False).last_hidden_state
    wanted = labels[:, 1:]
    kept = wanted != IGNORED
    after_result = torch.zeros_like(kept)
    after_result[:, 1:] = inputs[:, :-2] == equals  # the token before this one is "=", so this one is the result
    weights = 1.0 + (NOTICING_WEIGHT - 1) * after_result[kept]
    losses = torch.nn.functional.cross_entropy(policy.lm_head(hidden[kept]), wanted[kept], reduction="none")
    return (losses * weights).sum() / weights.sum()


def train(
    policy: Qwen2ForCausalLM, phases: list[tuple[int, Iterator[Batch]]], peak: float, name: str, equals: int
) -> float:
    """Train with AdamW, warm-up and cosine decay over the phases. Returns the mean loss of the last 100 steps."""
    steps = sum(count for count, _ in phases)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    losses: list[float] = []
    tokens, began = 0, time.monotonic()
    for batch in chain.from_iterable(islice(source, count) for count, source in phases):
        loss = _loss(policy, batch, equals)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        tokens += batch[0].numel()
        if len(losses) % 50 == 0:
            rate = (time.monotonic() - began) / len(losses)
            recent = sum(losses[-50:]) / 50
            speed = tokens / (time.monotonic() - began)
            left = rate * (steps - len(losses))
            print(f"{name} {len(losses)}/{steps} loss {recent:.4f} {speed:,.0f} tokens/s {left:.0f} s left", flush=True)
    return sum(losses[-100:]) / len(losses[-100:])


def _declare_tokenizer(path: Path) -> None:
    """Prevent AutoTokenizer from rebuilding the tokenizer as Qwen's byte-pair encoding.

    transformers 5 ignores the declared tokenizer class of folders with the model type qwen2 unless they have an auto_map. The
    entry names a class of transformers, so no custom code is loaded.
    """
    config = json.loads(path.read_text())
    config["auto_map"] = {"AutoTokenizer": [None, "TokenizersBackend"]}
    path.write_text(json.dumps(config, indent=2) + "\n")


def save(
    policy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, training: dict[str, object]
) -> None:
    """Write the policy, its tokenizer, and its entry in TRAINING.json."""
    policy.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=1.0
    )
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _declare_tokenizer(folder / "tokenizer_config.json")
    record_path = folder.parent / "TRAINING.json"
    record = json.loads(record_path.read_text()) if record_path.exists() else {}
    checksum = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    parameters = sum(weight.numel() for weight in policy.parameters())
    record[folder.name] = {
        **training,
        "command": " ".join(["python -m vgs_ray.sandbox.train_policy", *sys.argv[1:]]),
        "parameters": parameters,
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "sha256": checksum,
    }
    record_path.write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    """Train `ref` from scratch, then fine-tune `weak` from it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flawless-steps", type=int, default=800, help="steps on text without slips, first")
    parser.add_argument("--steps", type=int, default=1500, help="steps on the reference skill, after the flawless ones")
    parser.add_argument("--weak-steps", type=int, default=250)
    parser.add_argument("--deepen", type=Path, help="start from this policy with --layers additional layers")
    parser.add_argument("--layers", type=int, default=2, help="additional layers for --deepen; 0 continues training")
    parser.add_argument("--peak", type=float, default=3e-3)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = build_tokenizer()
    policy = (
        deepened(Qwen2ForCausalLM.from_pretrained(args.deepen), args.layers) if args.deepen else new_policy(tokenizer)
    )
    policy.model.compile(dynamic=True)  # a third faster on two cores; compiling takes half a minute
    phases = [
        (args.flawless_steps, batches(tokenizer, FLAWLESS, rng)),
        (args.steps, batches(tokenizer, REFERENCE, rng)),
    ]
    equals = tokenizer.convert_tokens_to_ids("=")
    loss = train(policy, phases, args.peak, "ref", equals)
    steps = args.flawless_steps + args.steps
    save(policy, tokenizer, args.out / "ref", {"seed": args.seed, "steps": steps, "final_loss": round(loss, 4)})
    loss = train(policy, [(args.weak_steps, batches(tokenizer, WEAK, rng))], args.peak / 4, "weak", equals)
    save(
        policy,
        tokenizer,
        args.out / "weak",
        {"seed": args.seed, "steps": args.weak_steps, "final_loss": round(loss, 4)},
    )


if __name__ == "__main__":
    main()
