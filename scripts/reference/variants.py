"""Writes tests/fixtures/variants: tiny random checkpoints of every kind of InternVL3, and the results
of `transformers` and `peft` with them.

    reference/bin/python scripts/reference/variants.py
    reference/bin/python scripts/reference/variants.py --live target/release/cadwright

`--live` makes checkpoints of other seeds, and compares our program's results with the references:
logits in either layout, with an adapter and with it merged, and the merged checkpoint in
`transformers`. See internvl.py for the environment.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from internvl import original_layout, randomise
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration

OUT = Path(__file__).resolve().parents[2] / "tests/fixtures/variants"

END_OF_TEXT, END_OF_TURN, IMAGE = 0, 2, 5
VOCAB = 64
SIZE, PATCH = 16, 4
TOKENS = (SIZE // PATCH // 2) ** 2
NEW_TOKENS = 8

LAYER_NORM = {"norm_type": "layer_norm", "use_qk_norm": False, "attention_bias": True}
RMS_NORM = {"norm_type": "rms_norm", "use_qk_norm": True, "attention_bias": False}

# Query heads, key heads, tied head, vision transformer; each the shape of a published size.
VARIANTS = {
    "1b": (7, 1, False, LAYER_NORM),
    "8b-tied": (4, 2, True, LAYER_NORM),
    "78b": (4, 4, False, RMS_NORM),
}


def config(variant: str) -> InternVLConfig:
    heads, kv_heads, tied, vision = VARIANTS[variant]
    return InternVLConfig(
        vision_config={
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_attention_heads": 3,
            "num_hidden_layers": 2,
            "image_size": [SIZE, SIZE],
            "patch_size": [PATCH, PATCH],
            **vision,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": VOCAB,
            "hidden_size": heads * 8,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "rope_theta": 1e6,
            "max_position_embeddings": 256,
            "tie_word_embeddings": tied,
        },
        image_token_id=IMAGE,
        image_seq_length=TOKENS,
        tie_word_embeddings=tied,
    )


def original_config(config: InternVLConfig) -> dict:
    vision, text = config.vision_config, config.text_config
    same = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    own = ("vocab_size", "num_key_value_heads", "rms_norm_eps", "rope_theta", "max_position_embeddings", "tie_word_embeddings")
    return {
        "architectures": ["InternVLChatModel"],
        "downsample_ratio": 0.5,
        "force_image_size": SIZE,
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            **{name: getattr(text, name) for name in (*same, *own)},
        },
        "ps_version": "v2",
        "select_layer": -1,
        "vision_config": {
            **{name: getattr(vision, name) for name in (*same, "layer_norm_eps", "norm_type")},
            "image_size": SIZE,
            "patch_size": PATCH,
            "qk_normalization": vision.use_qk_norm,
            "qkv_bias": vision.attention_bias,
        },
    }


def inputs(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Three rows, padded on the left, with pictures of one, three and two tiles. The last five tokens
    are the response."""
    rows = []
    for tiles, text in ((1, 9), (3, 6), (2, 12)):
        words = torch.randint(6, VOCAB, (text,), generator=generator).tolist()
        rows.append(words[:2] + [IMAGE] * (TOKENS * tiles) + words[2:])
    length = max(map(len, rows))
    ids = torch.tensor([[END_OF_TEXT] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    pixels = torch.randn((6, 3, SIZE, SIZE), generator=generator).bfloat16().float()
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def loss_of(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, -6:-1].flatten(0, 1), ids[:, -5:].flatten())


def make(variant: str, directory: Path, generator: torch.Generator) -> None:
    """Writes `hf/` and `original/`, the same model in both layouts, `adapter/`, and the results in
    `expected.safetensors`."""
    model = InternVLForConditionalGeneration._from_config(
        config(variant), attn_implementation="eager", dtype=torch.float32
    )
    randomise(model, generator)
    model.tie_weights()
    model.eval()
    given = inputs(generator)
    expected = dict(given)
    with torch.no_grad():
        expected["logits"] = model(**given).logits
        made = model.generate(
            **given,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=[END_OF_TURN, END_OF_TEXT],
            pad_token_id=END_OF_TEXT,
            return_dict_in_generate=True,
            output_logits=True,
        )
    expected["greedy"] = made.sequences[:, given["input_ids"].shape[1] :]
    gap = torch.stack(made.logits).topk(2).values.diff().abs().min().item()
    print(f"{variant}: greedy {expected['greedy'].tolist()}, smallest gap {gap:.3f}")

    directory.mkdir(parents=True)
    half = copy.deepcopy(model).bfloat16()
    half.save_pretrained(directory / "hf")
    (directory / "hf/generation_config.json").unlink(missing_ok=True)
    (directory / "original").mkdir()
    weights = {name: tensor.bfloat16().contiguous() for name, tensor in original_layout(model).items()}
    save_file(weights, directory / "original/model.safetensors", metadata={"format": "pt"})
    (directory / "original/config.json").write_text(json.dumps(original_config(model.config), indent=1) + "\n")

    # PEFT around the whole model, with rare settings: a regular expression, rank-stabilised scale, a
    # module kept whole.
    lora = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        target_modules=r"model\.language_model\.layers\.\d+\.(self_attn\.[qo]|mlp\.up)_proj",
        modules_to_save=["linear_2"],
    )
    tuned = get_peft_model(copy.deepcopy(model), lora)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
            elif "modules_to_save" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    tuned.eval()
    logits = tuned(**given).logits
    loss = loss_of(logits, given["input_ids"])
    loss.backward()
    expected |= {"lora_logits": logits.detach(), "lora_loss": loss.detach()}
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            expected["gradient." + name.replace(".default.", ".")] = parameter.grad
    tuned.save_pretrained(directory / "adapter")
    (directory / "adapter/README.md").unlink(missing_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, directory / "expected.safetensors")


def run(program: str, *arguments: object) -> None:
    subprocess.run([program, *map(str, arguments)], check=True)


def live(program: str, seeds: range) -> int:
    """The largest differences between our program's logits and the reference's, at positions that
    hold a token."""
    worst = trained_adapter(program)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            for variant in VARIANTS:
                directory = Path(scratch) / f"{variant}-{seed}"
                make(variant, directory, torch.Generator().manual_seed(1000 + seed))
                # Published checkpoints have a tokenizer, which defines the image token.
                run(program, "model", "init", "--preset", "nano", "--output", directory / "nano")
                shutil.copy(directory / "nano/tokenizer.json", directory / "original")
                expected = load_file(directory / "expected.safetensors")
                given = {name: expected[name] for name in ("input_ids", "attention_mask", "pixel_values")}
                save_file(given, directory / "in.safetensors")
                is_token = expected["attention_mask"].bool()

                def error(model: Path, reference: str, *adapter: object) -> float:
                    out = directory / "out.safetensors"
                    run(program, "model", "logits", "--model-path", model, *adapter,
                        "--input", directory / "in.safetensors", "--output", out)
                    return (load_file(out)["logits"] - expected[reference])[is_token].abs().max().item()

                adapter = ("--lora-path", directory / "adapter")
                errors = {}
                for layout in ("hf", "original"):
                    errors[layout] = error(directory / layout, "logits")
                    errors[f"{layout} + adapter"] = error(directory / layout, "lora_logits", *adapter)
                    merged = directory / f"merged-{layout}"
                    run(program, "model", "merge", "--model-path", directory / layout, *adapter, "--dtype", "f32",
                        "--output", merged)
                    errors[f"{layout} merged"] = error(merged, "lora_logits")
                    theirs = InternVLForConditionalGeneration.from_pretrained(merged, dtype=torch.float32).eval()
                    with torch.no_grad():
                        logits = theirs(**given).logits
                    errors[f"{layout} merged, in transformers"] = (
                        (logits - expected["lora_logits"])[is_token].abs().max().item()
                    )
                for what, size in errors.items():
                    print(f"  {variant} seed {seed} {what}: {size:.1e}")
                worst = max(worst, *errors.values())
    print(f"largest difference {worst:.1e}, allowed 1e-4")
    return int(worst > 1e-4)


def trained_adapter(program: str) -> float:
    """The largest difference of the logits of an adapter that our program trained, in PEFT."""
    with tempfile.TemporaryDirectory() as scratch:
        model, trained = Path(scratch) / "model", Path(scratch) / "run"
        run(program, "model", "init", "--preset", "nano", "--layout", "hf", "--dtype", "f32", "--output", model)
        settings = {
            "model.path": f'"{model}"', "model.dtype": '"f32"', "run.output_dir": f'"{trained}"', "lora.rank": 4,
            "lora.rslora": "true", "data.synth.train": 32, "data.synth.validation": 1, "data.synth.test": 1,
            "sft.max_steps": 4, "sft.warmup_steps": 0, "sft.learning_rate": 0.01, "sft.batch_size": 8,
            "sft.gradient_accumulation": 1, "sft.validation_samples": 1, "generate.max_new_tokens": 4,
        }
        run(program, "sft", *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")))
        adapter = trained / "sft/best"
        given = {"input_ids": torch.randint(6, 262, (2, 30), generator=torch.Generator().manual_seed(0))}
        save_file(given, Path(scratch) / "in.safetensors")
        run(program, "model", "logits", "--model-path", model, "--lora-path", adapter,
            "--input", Path(scratch) / "in.safetensors", "--output", Path(scratch) / "out.safetensors")
        base = InternVLForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
        with torch.no_grad():
            before = base(**given).logits
            theirs = PeftModel.from_pretrained(base, adapter).eval()(**given).logits
        moved = (theirs - before).abs().max().item()
        assert moved > 1e-2, f"the adapter changes next to nothing: {moved}"
        error = (load_file(Path(scratch) / "out.safetensors")["logits"] - theirs).abs().max().item()
        print(f"  an adapter of ours in peft: {error:.1e} (it moves logits by up to {moved:.2f})")
        return error


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--live", metavar="PROGRAM")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.live:
        return live(arguments.live, range(arguments.seeds))
    shutil.rmtree(OUT, ignore_errors=True)
    for index, variant in enumerate(VARIANTS):
        make(variant, OUT / variant, torch.Generator().manual_seed(index))
    return 0


if __name__ == "__main__":
    sys.exit(main())
