"""Recipes of the sandbox: the embedded world, on two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from vgs_ray.config import (
    Beam,
    Clean,
    DeepConf,
    Engine,
    Evaluate,
    Generator,
    Label,
    Mcts,
    ParticleFilter,
    Rebase,
    Recipe,
    ReferencePolicy,
    Resources,
    RollIn,
    RollOut,
    Sampling,
    Serve,
    Train,
    Variant,
    Verify,
)


def sandbox() -> Recipe:
    """The embedded world on two CPU cores, in minutes and without a GPU, with the same Ray and vLLM as any other recipe."""
    engine = Engine(
        max_model_len=512, max_num_seqs=512, kv_cache_gib=0.25, dtype="float32", enforce_eager=True, threads=1
    )
    one_replica, two_replicas = (Resources(replicas=count, num_cpus=0.25, num_gpus=0.0) for count in (1, 2))
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=192)
    reference = "sandbox:ref"
    beam = Beam(keep=1, branch=2, block=16, groups=8)
    train = Train(
        init=reference, batch_size=32, micro_tokens=1024, steps=560, lr=1e-3, min_warmup_steps=0, dropout=0.0, workers=2,
        cpus_per_worker=0.25, gpus_per_worker=0.0, compile=False, checkpoint_every=100, validate_every=100,
        position_bin=64,
    )  # fmt: skip
    evaluate = Evaluate(
        benchmarks=("sandbox",), limit=300, samples=16, beam=beam, budgets=(4, 8, 16), likelihood=8.0, sampling=sampling,
        policy_engine=engine, value_engine=engine, resources=replace(two_replicas, num_cpus=0.5),
    )  # fmt: skip
    return Recipe(
        name="sandbox",
        policy=ReferencePolicy(reference),
        clean=Clean(
            source="sandbox",
            limit=3000,
            validation=218,
            test=0,
            exclude=("sandbox",),
            contamination=0.7,  # all its problems share their wording; copies have 1.0, others up to 0.5
            workers=1,
        ),
        roll_in=RollIn(
            generators=(Generator("ref", reference, share=0.5), Generator("weak", "sandbox:weak", share=0.5)),
            per_problem=2,
            sampling=sampling,
            engine=engine,
            resources=one_replica,
        ),
        roll_out=RollOut(cuts=2, positions="uniform", sampling=sampling, engine=engine, resources=two_replicas),
        verify=Verify(workers=1),
        label=Label(hopeless_share=1.0),
        train=train,
        evaluate=evaluate,
        serve=Serve(
            beam=beam,
            sampling=sampling,
            layout="together",
            policy_engine=engine,
            value_engine=engine,
            resources=replace(one_replica, num_cpus=0.5),
            policy_resources=one_replica,
            value_resources=one_replica,
            model_name="vgs-sandbox",
        ),
    )


def sandbox_shared() -> Recipe:
    """The sandbox with a value model that shares all layers but one with the policy, and a search that needs few FLOPs."""
    base = sandbox()
    beam = Beam(keep=1, branch=2, block=32, groups=8, likelihood=base.evaluate.likelihood, align=True)
    variants = (
        Variant("branch_3", replace(beam, branch=3, groups=1)),
        Variant("confident", replace(beam, groups=4), confidence=0.6, stop="best"),
    )
    return replace(
        base,
        name="sandbox_shared",
        train=replace(base.train, trained_layers=1, share_policy=True),
        evaluate=replace(base.evaluate, beam=beam, budgets=(2, 4, 8, 16), variants=variants),
        serve=replace(base.serve, beam=beam),
    )


def sandbox_controls() -> Recipe:
    """The searches of `sandbox_shared` and others of about the same FLOPs, at a budget of 16."""
    base = sandbox_shared()
    beam = base.evaluate.beam
    block = beam.block
    variants = (
        Variant("value", replace(beam, likelihood=0.0)),
        Variant("entropy_gated", replace(beam, likelihood=0.0, branch_entropy=0.05)),
        Variant("prune_once", Beam(keep=8, branch=1, block=block, start=16, align=True)),
        Variant("rebase", rebase=Rebase(width=16, block=block)),
        Variant("particles", particles=ParticleFilter(width=16, block=block)),
        Variant("deepconf", deepconf=DeepConf(width=16, block=block)),
        Variant("deepconf_early", deepconf=DeepConf(width=16, block=block, warmup=8)),
    )
    return replace(base, name="sandbox_controls", evaluate=replace(base.evaluate, budgets=(16,), variants=variants))


def sandbox_methods() -> Recipe:
    """The sandbox with every search method in one report, at a budget of 16, and ablations."""
    base = sandbox()
    block = base.evaluate.beam.block
    variants = (
        Variant("beam_w", Beam(keep=8, branch=2, block=block)),
        Variant("breadth_first", Beam(keep=1, branch=16, block=block)),
        Variant("dvts_4", Beam(keep=1, branch=4, block=block, groups=4)),
        Variant("by_parent", Beam(keep=4, branch=2, block=block, groups=2, rank="parent")),
        Variant("reinvest", Beam(keep=4, branch=2, block=block, groups=2, finished="reinvest")),
        Variant("random", replace(base.evaluate.beam, choose="random")),
        Variant("steps", replace(base.evaluate.beam, block=64, delimiter=";")),
        Variant("rebase", rebase=Rebase(width=16, block=block)),
        Variant("mcts", mcts=Mcts(simulations=20, width=4, depth=16, block=block)),
        Variant("particles", particles=ParticleFilter(width=16, block=block)),
        Variant("likelihood", replace(base.evaluate.beam, likelihood=base.evaluate.likelihood)),
        Variant("entropy_gated", replace(base.evaluate.beam, branch_entropy=0.05)),
        Variant("prune_once", Beam(keep=8, branch=1, block=48, start=16)),
        Variant("deepconf", deepconf=DeepConf(width=16, block=block)),
        Variant("deepconf_early", deepconf=DeepConf(width=16, block=block, warmup=8)),
    )
    return replace(
        base, name="sandbox_methods", evaluate=replace(base.evaluate, limit=100, budgets=(16,), variants=variants)
    )
