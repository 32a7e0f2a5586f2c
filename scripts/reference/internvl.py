"""Writes tests/fixtures/internvl: a tiny random InternVL3, and the results of `transformers` and
`peft` with it.

    python -m venv reference && reference/bin/pip install -r scripts/reference/requirements.txt
    reference/bin/python scripts/reference/internvl.py

Every parameter is random, also norms, biases and layer scales: zeros and ones would hide a missing
term. Values are rounded to bf16, which halves the file; the outputs are fp32, computed from the
rounded values.
"""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2ForCausalLM

OUT = Path(__file__).resolve().parents[2] / "tests/fixtures/internvl"
SEED = 132

# Ids of InternVL3's six special tokens in a tokenizer trained with them over the 256 bytes.
END_OF_TEXT, START_OF_TURN, END_OF_TURN, IMAGE_START, IMAGE_END, IMAGE = range(6)
VOCAB = 6 + 256
NEW_TOKENS = 12

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "layer_norm_eps": 1e-6,
    "norm_type": "layer_norm",
}
LANGUAGE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    # As in InternVL3: it has no effect on sequences that fit max_position_embeddings.
    "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
IMAGE_SIZE, PATCH = 56, 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_model(generator: torch.Generator, tied: bool) -> InternVLForConditionalGeneration:
    config = InternVLConfig(
        vision_config={
            **VISION,
            "patch_size": [PATCH, PATCH],
            "image_size": [IMAGE_SIZE, IMAGE_SIZE],
            "attention_bias": True,
            "use_qk_norm": False,
        },
        text_config={"model_type": "qwen2", **LANGUAGE, "tie_word_embeddings": tied},
        image_token_id=IMAGE,
        image_seq_length=(IMAGE_SIZE // PATCH // 2) ** 2,
        downsample_ratio=0.5,
        tie_word_embeddings=tied,
    )
    model = InternVLForConditionalGeneration._from_config(config, attn_implementation="eager", dtype=torch.float32)
    randomise(model, generator)
    return model.eval()


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Every parameter random, on bf16's grid."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "lm_head.weight":
                value = 0.4 * noise
            elif "embed" in name and parameter.dim() < 4 or "cls_token" in name:
                value = 0.5 * noise
            elif parameter.dim() > 1:
                value = noise / parameter[0].numel() ** 0.5
            elif "norm" in name and name.endswith("weight"):
                value = 1 + 0.2 * noise
            elif "lambda" in name:
                value = 0.5 + 0.2 * noise
            else:
                assert name.endswith("bias"), name
                value = 0.2 * noise
            parameter.copy_(value.bfloat16().float())


def original_layout(model: InternVLForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The weights under the names of OpenGVLab's InternVLChatModel."""
    state = {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    if model.config.get_text_config().tie_word_embeddings:
        del state["lm_head.weight"]
    out: dict[str, torch.Tensor] = {}

    def take(new: str, old: str) -> None:
        for part in ("weight", "bias"):
            if f"{old}.{part}" in state:
                out[f"{new}.{part}"] = state.pop(f"{old}.{part}")

    embeddings = "vision_model.embeddings"
    out[f"{embeddings}.class_embedding"] = state.pop("vision_tower.embeddings.cls_token")
    out[f"{embeddings}.position_embedding"] = state.pop("vision_tower.embeddings.position_embeddings")
    take(f"{embeddings}.patch_embedding", "vision_tower.embeddings.patch_embeddings.projection")
    for layer in range(model.config.vision_config.num_hidden_layers):
        new, old = f"vision_model.encoder.layers.{layer}", f"vision_tower.encoder.layer.{layer}"
        for part in ("weight", "bias"):
            if f"{old}.attention.q_proj.{part}" in state:
                qkv = [state.pop(f"{old}.attention.{which}_proj.{part}") for which in "qkv"]
                out[f"{new}.attn.qkv.{part}"] = torch.cat(qkv)
        take(f"{new}.attn.q_norm", f"{old}.attention.q_norm")
        take(f"{new}.attn.k_norm", f"{old}.attention.k_norm")
        take(f"{new}.attn.proj", f"{old}.attention.projection_layer")
        take(f"{new}.norm1", f"{old}.layernorm_before")
        take(f"{new}.norm2", f"{old}.layernorm_after")
        out[f"{new}.ls1"], out[f"{new}.ls2"] = state.pop(f"{old}.lambda_1"), state.pop(f"{old}.lambda_2")
        take(f"{new}.mlp.fc1", f"{old}.mlp.fc1")
        take(f"{new}.mlp.fc2", f"{old}.mlp.fc2")
    for new, old in (("mlp1.0", "layer_norm"), ("mlp1.1", "linear_1"), ("mlp1.3", "linear_2")):
        take(new, f"multi_modal_projector.{old}")
    take("language_model.lm_head", "lm_head")
    for name in [name for name in state if name.startswith("language_model.")]:
        out["language_model.model." + name.removeprefix("language_model.")] = state.pop(name)
    assert not state, f"left over: {list(state)}"
    return out


def original_config() -> dict:
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": IMAGE_SIZE,
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "torch_dtype": "bfloat16",
            **LANGUAGE,
        },
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "torch_dtype": "bfloat16",
        "use_thumbnail": True,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_act": "gelu",
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
            "qk_normalization": False,
            "qkv_bias": True,
            "use_flash_attn": True,
            **VISION,
        },
    }


def inputs(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Two rows of 18 tokens, the second with 5 of padding on the left. The last 6 of each are the
    response."""
    image = [START_OF_TURN, IMAGE_START] + [IMAGE] * 4 + [IMAGE_END]
    text = torch.randint(6, VOCAB, (2, 11), generator=generator).tolist()
    rows = [image + text[0], [END_OF_TEXT] * 5 + image + text[1][5:]]
    ids = torch.tensor(rows)
    is_token = torch.ones_like(ids, dtype=torch.bool)
    is_token[1, :5] = False
    is_response = torch.zeros_like(is_token)
    is_response[:, 12:] = True
    return {
        "tiles": torch.randint(0, 256, (2, 3, IMAGE_SIZE, IMAGE_SIZE), generator=generator, dtype=torch.uint8),
        "ids": ids,
        "is_token": is_token,
        "is_response": is_response,
    }


def language_model(model: InternVLForConditionalGeneration) -> Qwen2ForCausalLM:
    """The decoder and its head as one module, which InternVL's fine-tuning script wraps with PEFT."""
    out = Qwen2ForCausalLM._from_config(model.config.text_config, attn_implementation="eager", dtype=torch.float32)
    state = {f"model.{name}": tensor for name, tensor in model.model.language_model.state_dict().items()}
    out.load_state_dict({**state, "lm_head.weight": model.lm_head.weight})
    return out.eval()


def main() -> None:
    generator = torch.Generator().manual_seed(SEED)
    model = random_model(generator, tied=False)
    given = inputs(generator)
    pixels = (given["tiles"].float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    attention_mask = given["is_token"].long()
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    batch = {"input_ids": given["ids"], "attention_mask": attention_mask, "pixel_values": pixels}
    expected = dict(given)
    with torch.no_grad():
        expected["image"] = model.get_image_features(pixel_values=pixels)
        expected["logits"] = model(**batch, position_ids=positions).logits
        tied = random_model(torch.Generator().manual_seed(0), tied=True)
        state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
        tied.load_state_dict(state, strict=False)
        tied.tie_weights()
        expected["tied_logits"] = tied(**batch, position_ids=positions).logits[:, -6:]

        made = model.generate(
            **batch,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=[END_OF_TURN, END_OF_TEXT],
            pad_token_id=END_OF_TEXT,
            return_dict_in_generate=True,
            output_logits=True,
        )
        expected["greedy"] = made.sequences[:, given["ids"].shape[1] :]
        gaps = torch.stack(made.logits).topk(2).values.diff().abs()
        print("greedy tokens:", expected["greedy"].tolist(), "smallest gap between the best two:", gaps.min().item())
        assert gaps.min() > 0.01, "a near tie: another seed makes the greedy tokens independent of rounding"
        is_end = torch.isin(expected["greedy"], torch.tensor([END_OF_TURN, END_OF_TEXT]))
        assert is_end.any(1).sum() == 1, "one row should end and the other be cut off: another seed"

    # A LoRA step, with PEFT around the language model only.
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    tuned = get_peft_model(language_model(model), lora)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
        embeds = model.get_input_embeddings()(given["ids"])
        embeds = embeds.masked_scatter((given["ids"] == IMAGE).unsqueeze(-1), expected["image"])
    logits = tuned(inputs_embeds=embeds, attention_mask=attention_mask, position_ids=positions).logits
    # The logits of position t - 1 predict token t; the mean is over the batch's response tokens.
    is_target = given["is_response"][:, 1:]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1][is_target], given["ids"][:, 1:][is_target])
    loss.backward()
    expected["lora_logits"] = logits.detach()
    expected["lora_loss"] = loss.detach()

    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    tuned.save_pretrained(OUT / "adapter")
    (OUT / "adapter/README.md").unlink()
    # PEFT keeps target_modules as a set: sorted, a second run writes the same file.
    settings = json.loads((OUT / "adapter/adapter_config.json").read_text())
    settings["target_modules"].sort()
    (OUT / "adapter/adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    keys = set(load_file(OUT / "adapter/adapter_model.safetensors"))
    gradients = {
        name.replace(".default.", "."): p.grad for name, p in tuned.named_parameters() if p.grad is not None
    }
    assert set(gradients) == keys, "a gradient for every tensor of the adapter"
    expected |= {f"gradient.{name}": gradient for name, gradient in gradients.items()}

    save_file(
        {name: tensor.bfloat16().contiguous() for name, tensor in original_layout(model).items()},
        OUT / "model.safetensors",
        metadata={"format": "pt"},
    )
    (OUT / "config.json").write_text(json.dumps(original_config(), indent=2) + "\n")
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, OUT / "expected.safetensors")
    for name in ("image", "logits", "tied_logits", "lora_logits"):
        print(name, tuple(expected[name].shape), "standard deviation", round(expected[name].std().item(), 3))

    # The reference's own difference between bf16 and fp32, with which our bf16 tolerance is compared.
    with torch.no_grad():
        half = model.bfloat16()(**{**batch, "pixel_values": pixels.bfloat16()}, position_ids=positions).logits.float()
    error = (half - expected["logits"])[given["is_token"]].abs()
    print(f"transformers in bf16: max error of the logits {error.max():.3f}, mean {error.mean():.4f}")


if __name__ == "__main__":
    main()
