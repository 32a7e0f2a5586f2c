"""An independent implementation of the losses of reinforcement learning, for tests/all/losses.rs.

It has the form of most trainers: right-padded batches with masks, float64, gradients by autograd.
Ours has no padding; the numbers must be the same.

Usage: python scripts/reference/rl.py [FIXTURE]     writes tests/fixtures/rl.json
"""

import json
import sys

import torch

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
LENGTHS = [5, 1, 7, 3]
VOCAB, TEMPERATURE, CLIP, VALUE_CLIP = 6, 0.8, 0.2, 0.2
B, T = len(LENGTHS), max(LENGTHS)
mask = torch.arange(T)[None, :] < torch.tensor(LENGTHS)[:, None]
# The third completion was cut off at the limit. Its value after the end is 0 too: it gets only its
# reward.
truncated = [False, False, True, False]


def masked_mean(values):
    return (values * mask).sum() / mask.sum()


def gae(rewards, values, gamma, lam):
    """Schulman et al. 2016, eq. 16, on the padded batch: rewards at each row's last token, value 0
    after it."""
    token_rewards = torch.zeros(B, T)
    for row, length in enumerate(LENGTHS):
        token_rewards[row, length - 1] = rewards[row]
    advantages, last = torch.zeros(B, T), torch.zeros(B)
    for t in reversed(range(T)):
        follows = mask[:, t + 1].double() if t + 1 < T else torch.zeros(B)
        following_value = values[:, t + 1] if t + 1 < T else torch.zeros(B)
        delta = token_rewards[:, t] + gamma * following_value * follows - values[:, t]
        last = (delta + gamma * lam * last * follows) * mask[:, t]
        advantages[:, t] = last
    return advantages, (advantages + values) * mask


def whiten(values):
    mean = masked_mean(values)
    variance = masked_mean((values - mean) ** 2)
    return (values - mean) / (variance.sqrt() + 1e-8)


def flat(values):
    return values[mask].tolist()


logits = torch.randn(B, T, VOCAB, requires_grad=True)
targets = torch.randint(VOCAB, (B, T))
log_softmax = torch.log_softmax(logits / TEMPERATURE, -1)
logprobs = log_softmax.gather(-1, targets[..., None])[..., 0]
old_logprobs = (logprobs + 0.3 * torch.randn(B, T)).detach()
ref_logprobs = (logprobs + 0.5 * torch.randn(B, T)).detach()
rewards = torch.randn(B)
old_values = torch.randn(B, T)
values = (old_values + 0.4 * torch.randn(B, T)).requires_grad_()

found = {"gae": []}
for gamma, lam in [(1.0, 1.0), (1.0, 0.95), (0.9, 0.5)]:
    advantages, returns = gae(rewards, old_values, gamma, lam)
    found["gae"].append({
        "gamma": gamma, "lambda": lam, "advantages": flat(advantages), "returns": flat(returns),
        "whitened": flat(whiten(advantages)),
    })
advantages, returns = gae(rewards, old_values, 1.0, 0.95)
advantages = whiten(advantages)

ratio = torch.exp(logprobs - old_logprobs)
surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
clipped = old_values + (values - old_values).clamp(-VALUE_CLIP, VALUE_CLIP)
value_loss = 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2))
log_ratio = ref_logprobs - logprobs
plain = torch.log_softmax(logits, -1)
losses = {
    "policy": -masked_mean(surrogate),
    "kl": masked_mean(torch.exp(log_ratio) - log_ratio - 1),
    "entropy": masked_mean(-(log_softmax.exp() * log_softmax).sum(-1)),
    "ce": -masked_mean(plain.gather(-1, targets[..., None])[..., 0]),
}
for name, loss in losses.items():
    gradient, = torch.autograd.grad(loss, logits, retain_graph=True)
    assert gradient[~mask].abs().max() == 0, "padding has a gradient"
    found[name] = {"loss": loss.item(), "gradient": gradient[mask].tolist()}
gradient, = torch.autograd.grad(value_loss, values)
found["value"] = {"loss": value_loss.item(), "gradient": flat(gradient)}
found |= {
    "lengths": LENGTHS, "truncated": truncated, "temperature": TEMPERATURE, "clip_range": CLIP,
    "value_clip_range": VALUE_CLIP, "clip_fraction": masked_mean(((ratio - 1).abs() > CLIP).double()).item(),
    "rewards": rewards.tolist(), "logits": logits[mask].tolist(), "targets": flat(targets),
    "old_logprobs": flat(old_logprobs), "ref_logprobs": flat(ref_logprobs), "old_values": flat(old_values),
    "values": flat(values), "policy_advantages": flat(advantages), "value_returns": flat(returns),
}
with open(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/rl.json", "w") as file:
    json.dump(found, file, indent=1)
    file.write("\n")
