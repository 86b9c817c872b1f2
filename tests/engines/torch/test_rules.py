"""Update rules beside PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold.engines.torch.rules import SGD, Adam, Muon, Rule, orthogonalize  # noqa: E402

SHAPES = ((6, 4, 3, 3), (5,), (7, 6), (6, 4, 3, 3))

PAIRS: dict[str, tuple[Callable[..., Rule], Callable[..., Any]]] = {
    "sgd": (lambda p: SGD(p, 0.1, 0.0, True), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda p: SGD(p, 0.1, 0.9, False), lambda p: torch.optim.SGD(p, 0.1, 0.9)),
    "nesterov, decay": (
        lambda p: SGD(p, 0.1, 0.85, True, 0.02),
        lambda p: torch.optim.SGD(p, 0.1, 0.85, nesterov=True, weight_decay=0.02),
    ),
    "adam": (lambda p: Adam(p, 0.01, (0.9, 0.999), 1e-8, False), lambda p: torch.optim.Adam(p, 0.01)),
    "adam, decay": (
        lambda p: Adam(p, 0.01, (0.8, 0.95), 1e-6, False, 0.1),
        lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), 1e-6, 0.1),
    ),
    "adamw": (
        lambda p: Adam(p, 0.01, (0.9, 0.999), 1e-8, True, 0.1),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    ),
}


def weights() -> list[Any]:
    torch.manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    made[0].data = made[0].data.contiguous(memory_format=torch.channels_last)
    return made


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_as_torch_optim_with_a_rate_that_changes(pair: tuple[Callable[..., Rule], Callable[..., Any]]) -> None:
    ours, theirs = weights(), weights()
    mine, wanted = pair[0](ours), pair[1](theirs)
    for step in range(20):
        for group in (*mine.param_groups, *wanted.param_groups):
            group["lr"] = 0.01 * (1 + step % 7)
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        wanted.step()
        for a, b in zip(ours, theirs, strict=True):
            assert (a - b).abs().max() < 1e-6, step
    names = {key for state in mine.state.values() for key in state}
    assert names == {key for state in wanted.state.values() for key in state if state[key] is not None} - {"step"}
    for a, b in zip(ours, theirs, strict=True):
        for name in names:
            assert (mine.state[a][name] - wanted.state[b][name]).abs().max() < 1e-6


def test_a_weight_without_a_gradient_is_left_alone() -> None:
    for make, _ in PAIRS.values():
        ours = weights()
        before = [w.detach().clone() for w in ours]
        ours[1].grad = torch.ones_like(ours[1])
        make(ours).step()
        assert [torch.equal(a, b) for a, b in zip(ours, before, strict=True)] == [True, False, True, True]


def test_muon_as_written_down_for_one_kernel() -> None:
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    wanted, momentum = p.detach().clone(), torch.zeros(p.shape)
    rule = Muon([p], 0.1, 0.6, True, 3)
    for _ in range(3):
        p.grad = torch.randn_like(p)
        momentum = 0.6 * momentum + p.grad
        update = orthogonalize((p.grad + 0.6 * momentum).reshape(1, 6, -1), 3).view(p.shape)
        wanted = wanted * (6**0.5 / wanted.norm()) - 0.1 * update
        rule.step()
        assert torch.allclose(p, wanted, atol=1e-5)


def test_the_rate_is_read_from_the_device_at_the_update() -> None:
    """What a CUDA graph needs: the update's Python numbers stay, the tensors' values change."""
    p = torch.nn.Parameter(torch.zeros(3))
    rule = SGD([p], 0.5, 0.0, False)
    p.grad = torch.ones(3)
    rule.prepare()
    rule.param_groups[0]["lr"] = 100.0  # not sent
    rule.update()
    assert torch.equal(p.detach(), torch.full((3,), -0.5))


def test_a_step_whose_scaled_gradients_overflow_is_left_out() -> None:
    """fp16's way: the loss scale is taken out of the gradients, and a step that overflowed does not count."""
    from tenfold import recipe as recipes
    from tenfold.architecture import zoo
    from tenfold.engines.schedule import plan
    from tenfold.engines.torch import build
    from tenfold.engines.torch.optimize import Optimizers

    recipe = recipes.override(recipes.load("classic"), {"model.widths": [4]})
    architecture = zoo.build(recipe.model, 16, 16, 4)
    net = build.build(architecture)
    for p in net.parameters():
        torch.nn.init.normal_(p)
    optimizers = Optimizers(recipe, architecture, build.tensors(net, architecture), plan(recipe, 1000))
    optimizers.set_rate(0.5)
    before = {n: t.detach().clone() for n, t in optimizers.named.items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for broken in (True, False):
        for tensor in optimizers.named.values():
            tensor.grad = torch.ones_like(tensor)
            scaler.scale(torch.zeros(()))
            tensor.grad *= scaler.get_scale()
        next(iter(optimizers.named.values())).grad[0] *= float("inf") if broken else 1.0  # type: ignore[index]
        optimizers.step(scaler)
        moved = [float((t.detach() - before[n]).abs().max()) for n, t in optimizers.named.items()]
        if broken:
            assert max(moved) == 0 and optimizers._all[0].count == 0 and scaler.get_scale() == 4.0
        else:  # Adam's first step is the rate, whatever the gradient's size
            assert moved == pytest.approx([recipe.optimizer.lr] * len(moved), rel=1e-3)
            assert optimizers._all[0].count == 1


def test_a_rule_whose_weights_all_rest_is_passed_over_by_the_scaler() -> None:
    """Muon's kernels rest while the last layer alone is trained: they have no gradients, and count no step."""
    from tenfold import recipe as recipes
    from tenfold.architecture import zoo
    from tenfold.engines.groups import body
    from tenfold.engines.schedule import plan
    from tenfold.engines.torch import build
    from tenfold.engines.torch.optimize import Optimizers

    recipe = recipes.override(recipes.load("sprint"), {"model.widths": [8], "finetune": {"frozen_epochs": 1}})
    architecture = zoo.build(recipe.model, 16, 16, 4)
    net = build.build(architecture)
    for p in net.parameters():
        torch.nn.init.normal_(p)
    optimizers = Optimizers(recipe, architecture, build.tensors(net, architecture), plan(recipe, 1000))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(()))
    optimizers.set_rate(0.0)
    resting = body(architecture)
    before = {n: t.detach().clone() for n, t in optimizers.named.items()}
    for name, tensor in optimizers.named.items():
        tensor.grad = None if name in resting else torch.ones_like(tensor)
    optimizers.step(scaler)
    moved = {n for n, t in optimizers.named.items() if not torch.equal(t.detach(), before[n])}
    assert moved == set(before) - set(resting)
    assert {row["role"]: row["count"] for rule in optimizers._all for row in counts(rule)} == {
        "bias": 0, "whiten": 0, "head": 1, "muon": 0,
    }  # fmt: skip


def counts(rule: Rule) -> list[dict[str, Any]]:
    return [{"role": row["group"].role, "count": row["count"]} for row in rule.param_groups]
