"""Writes tests/fixtures/text: a small tokenizer in the files of the published InternVL3 checkpoints,
chat templates, and the results of `transformers` with them for texts and conversations.

    python -m venv reference && reference/bin/pip install -r scripts/reference/requirements.txt
    reference/bin/python scripts/reference/tokenizer.py

The vocabulary is trained on the sentences and programs below. Everything else (split, normaliser,
added tokens, their flags and roles) is as in the published files. The fixture has the templates of
`TEMPLATES` unchanged; `qwen2_5` is that of Qwen2.5-Instruct (Apache 2.0).
"""

import itertools
import json
import shutil
import tempfile
import unicodedata
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen2TokenizerFast
from transformers.models.internvl.processing_internvl import InternVLProcessor

OUT = Path(__file__).resolve().parents[2] / "tests/fixtures/text"
MERGES = 800

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
# In the vocabulary and never split, but not special.
ORDINARY = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
]  # fmt: skip
INTERNVL = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, doesn't it? They're here; we've seen 1234567890 of them.",
    "Generate the CADQuery code needed to create the CAD for the provided image.",
    "Der schnelle braune Fuchs springt über den faulen Hund. Größe: 3,5 mm; Straße, Öl, naïve café.",
    "你好,世界。请根据图片生成代码。三维模型的体积是多少?",
    "こんにちは世界。図面からプログラムを書いてください。",
    "안녕하세요, 세계! 그림을 보고 프로그램을 작성하세요.",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку.",
    "مرحبا بالعالم، اكتب برنامجا. שלום עולם.",
    "def f(x):\n    if x:\n        return 1\n\n\n    return 2\r\n\r\n\r\nend \n\n\n    # a\n\n    b\n  c\n  d",
    "IT'SO WE'LLA HE'DO: IT'SO WE'LLA HE'DO",
    "🙂👍🏽 👩‍👩‍👧 🇩🇪 ✅ — “quotes” … ½ ² ③ Ⅷ ٣",
]


def programs() -> list[str]:
    """Programs in the data set's style, with numbers that come from arithmetic."""
    out = []
    for i in range(40):
        x, y, depth = 0.0625 * (i % 11) - 0.3, 0.03125 * (i * 7 % 13), 0.05 + 0.0125 * (i % 9)
        out.append(
            "import cadquery as cq\n"
            f"# Generating a workplane for sketch {i}\n"
            f"wp_sketch{i} = cq.Workplane(cq.Plane(cq.Vector({x}, {y}, 0.0), cq.Vector(1.0, 0.0, 0.0), "
            "cq.Vector(0.0, 0.0, 1.0)))\n"
            f"loop{i}=wp_sketch{i}.moveTo({x + 0.5}, 0.0).lineTo({y}, {x}).threePointArc(({x}, {y}), (0.5, 0.25)).close()\n"
            f"solid{i}=wp_sketch{i}.add(loop{i}).extrude({depth})\n"
            f"solid=solid.cut(solid{i})\n"
        )
    return out


def texts() -> list[str]:
    plain = [
        "", " ", "  ", "   a", "a   ", "\n", "\n\n", "\r\n", "a\r\nb", " \n ", "\t", "\t\tx", "a\tb", "a \n\n b", "\n  a",
        "x\n\n\n    y", "    indented", "trailing   \n", "\u00a0", "a\u00a0b", "\u2003x", "\u3000全角", "\u200bzero", "\ufeffbom",
        "\u0085next", "\u180e", "\u2028line", "\x0b\x0c", "\x00", "\x7f", "a\x00b",
        "0", "12", "1234", "3.14", "-0.0625", "1e-07", "1,000,000", "٣٤", "½", "²³", "Ⅷ", "③x", "१२३", "0x1F", "v2.13.0",
        "it's", "IT'S", "I'm", "we'Ve", "they'LL", "he'd", "'s", "''s", "don't", "don’t", "'\u017f", "x'\u017fy", "rock'n'roll",
        "foo_bar", "foo.bar(baz)", "a+=1", "->", "!=", "==", "(((", "[0]", "{}", "<>", "</", "#!", "a/b\\c", "@x", "$1", "100%",
        "é", "e\u0301", "cafe\u0301", "Å", "A\u030a", "\u212b", "ﬁ", "ﬀ", "ộ", "o\u0302\u0323", "\u1100\u1161\u11a8", "각", "が", "か\u3099",
        "İ", "ı", "ß", "ẞ", "ς", "Σ", "ǆ", "\u0344", "\u0958", "\u2126",
        "你好", "你好,世界", "三维CAD模型", "日本語テキスト", "カタカナ", "ｶﾀｶﾅ", "한국어", "안녕 world", "漢字かな交じり文。", "𠮷野家",
        "🙂", "👍🏽", "👩‍👩‍👧", "🇩🇪", "🙂🙂", "a🙂b", " 🙂", "✅ done", "\U0001f9d1\u200d\U0001f680", "\ufffd", "\U0010ffff", "\ue000",
        "Привет", "مرحبا", "שלום", "Ελληνικά", "हिन्दी", "ไทย", "ქართული", "naïve café", "Größe", "Straße\n",
        "<|im_start|>user\nHi<|im_end|>\n", "<img><IMG_CONTEXT><IMG_CONTEXT></img>", "<IMG_CONTEXT>x", "x<IMG_CONTEXT> y",
        "<|endoftext|>", "a<|endoftext|>b", " <|im_end|> ", "\n<|im_end|>\n", "<|im_end|><|im_end|>", "<|im_end", "<|IM_END|>",
        "<image>", "<image>\nWhat?", "<img>", "< img >", "<tool_call>\n{\"name\": 1}\n</tool_call>", "<|fim_prefix|>x<|fim_suffix|>",
        "a<|repo_name|>b", "<|file_sep|>", "<ref>part</ref><box>[[1, 2]]</box>", "<|vision_start|><|image_pad|><|vision_end|>",
        "é<|im_end|>e\u0301", "<|im_start|><|im_start|>", "<quad>", "<quadd>", "</quad></ref>", "<|box_start|>(1,2)<|box_end|>",
    ]  # fmt: skip
    parts = ["cq.Workplane('XY')", " ", "\n\n", "ü", "12.5", "<|im_end|>", "'ll"]
    mixed = ["".join(pair) for pair in itertools.permutations(parts, 2)]
    return [*plain, *SENTENCES, *mixed, *programs()[:6], unicodedata.normalize("NFD", SENTENCES[2])]


LOOP_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n你是书生·万象,英文名是InternVL。<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LIST_TEMPLATE = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\n' }}
{%- if message['content'] is string %}
{{ message['content'] }}
{%- else %}
    {%- for content in message['content'] %}
        {%- if content['type'] == 'image' %}
{{ '<IMG_CONTEXT>\n' }}
        {%- elif content['type'] == 'video' %}
{{ '<video>\n' }}
        {%- elif content['type'] == 'text' %}
{{ content['text'] }}
        {%- endif %}
    {%- endfor %}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

QWEN2_5 = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

# Features that templates of other models use.
FEATURES = r"""{%- macro turn(role, text) -%}<|im_start|>{{ role }}
{{ text }}{{ eos_token }}{%- endmacro -%}
{%- set ns = namespace(count=0, last=none) -%}
{#- a comment -#}
{%- for message in messages[::-1] -%}
    {%- set ns.count = ns.count + 1 -%}
    {%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- break -%}{%- endif -%}
{%- endfor -%}
{{- bos_token }}{{ ns.count }} {{ ns.last }} {{ none }} {{ true }} {{ undefined_name }} {{ sep_token is defined }}
    {% if tools is none and documents is not defined or documents is none %}
no tools, {{ strftime_now('%%') }}
    {% endif %}
{% for message in messages %}
    {%- set text = message.content.strip().split('|')[-1].replace('a', 'A') %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('role ' + message.role) }}{% endif %}
    {{- turn(message['role'], text | trim) }}
    {%- generation %}{{ message.role.upper() ~ '!' }}{% endgeneration %}
    {{- message | tojson }}{{ message | tojson(indent=2) }}{{ {'b': [1, 2.5, true, none, {}], 'a': 'é"\n'} | tojson(sort_keys=true) }}
    {{- message.content.startswith(' ') }}{{ message.get('name', 'nobody') }}{{ '%s' | replace('%s', loop.last | string | lower) }}
{% endfor %}
{%- for key, value in {'k': 'v'}.items() %}{{ key }}={{ value }}{% endfor %}
{{- additional_special_tokens[0] }}{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(',') }}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

TEMPLATES = {"loop": LOOP_TEMPLATE, "list": LIST_TEMPLATE, "qwen2_5": QWEN2_5, "features": FEATURES}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "measure",
            "description": "Mißt <das> Volumen & 'mehr' \"usw.\" 体积",
            "parameters": {"type": "object", "properties": {"unit": {"type": "string"}}, "required": ["unit"]},
        },
    }
]
CONVERSATIONS = {
    "plain": [{"role": "user", "content": "Hi"}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  a|b a  "}],
    "turns": [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two? é <b>&'"},
    ],
    "calls": [
        {"role": "user", "content": "Volume?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"type": "function", "function": {"name": "measure", "arguments": {"unit": "mm", "n": 3}}}],
        },
        {"role": "tool", "content": "42"},
        {"role": "tool", "content": "43"},
    ],
}


def write_tokenizer() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    # Trained without Qwen2's split: tokens cross its borders, so a wrong split gives other ids.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=256 + MERGES, initial_alphabet=alphabet, max_token_length=6, show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES, *SENTENCES, *programs()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    write("vocab.json", json.dumps(model["vocab"], ensure_ascii=False))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    write("merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")

    names = [*SPECIAL, *ORDINARY, *INTERNVL]
    first = len(model["vocab"])
    ids = {name: first + i for i, name in enumerate(names)}
    write("added_tokens.json", json.dumps(ids))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {
        str(index): {"content": name, **flags, "special": name not in ORDINARY} for name, index in ids.items()
    }
    roles = {
        "additional_special_tokens": [*SPECIAL[1:], *INTERNVL],
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    settings = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 8192,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    write("tokenizer_config.json", json.dumps({**settings, **roles}))
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    named = {role: {"content": name, **token} for role, name in roles.items() if isinstance(name, str)}
    additional = {"additional_special_tokens": roles["additional_special_tokens"]}
    write("special_tokens_map.json", json.dumps({**additional, **named}))


def write(name: str, text: str) -> None:
    (OUT / name).write_text(text, encoding="utf-8")


def tokenised(slow: Qwen2Tokenizer, fast: Qwen2TokenizerFast) -> list[dict]:
    cases, differing = [], 0
    for text in dict.fromkeys(texts()):
        ids = fast(text, add_special_tokens=False)["input_ids"]
        if slow(text, add_special_tokens=False)["input_ids"] != ids:
            differing += 1
            print("slow and fast differ:", repr(text), slow.tokenize(text), fast.tokenize(text))
        decoded = fast.decode(ids, skip_special_tokens=True)
        if slow.decode(ids, skip_special_tokens=True) != decoded:
            print("slow and fast decode differently:", repr(text))
        cases.append({"text": text, "ids": ids, "decoded": decoded})
    print(len(cases), "texts,", differing, "of which slow and fast tokenise differently")
    return cases


def legacy_decoded(cases: list[dict]) -> dict[str, str]:
    """Decoded texts if the added tokens are in `added_tokens.json` and their roles in
    `special_tokens_map.json`."""
    with tempfile.TemporaryDirectory() as directory:
        for name in ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"):
            shutil.copy(OUT / name, directory)
        fast = Qwen2TokenizerFast.from_pretrained(directory)
    for case in cases:
        assert fast(case["text"], add_special_tokens=False)["input_ids"] == case["ids"], case["text"]
    return {case["text"]: fast.decode(case["ids"], skip_special_tokens=True) for case in cases if "<" in case["text"]}


def prompts(tokenizer: Qwen2TokenizerFast) -> list[dict]:
    """One picture and one request, as InternVL's own code and `transformers`' processor expand them."""
    # The half of the processor that handles text; the other half needs pictures.
    processor = object.__new__(InternVLProcessor)
    processor.tokenizer = tokenizer
    processor.image_seq_length, processor.video_token = 4, "<video>"
    processor.start_image_token, processor.end_image_token, processor.image_token = INTERNVL[:3]
    cases = []
    for template, system, user, tiles in itertools.product(
        ("loop", "list", "qwen2_5"), ("", "You write CadQuery.\nOnly code. é"), ("Which part?", "", "  Zwei\nZeilen. "), (1, 3)
    ):
        if template == "list":
            content = [{"type": "image"}, *([{"type": "text", "text": user}] if user else [])]
            messages = [{"role": "user", "content": content}]
            if system:
                messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
            processor.chat_template = TEMPLATES[template]
            text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            pixels = list(range(tiles))
            (expected,), *_ = processor._insert_media_placeholders([text], pixels, None, [tiles], [], [tiles], [], [0])
        else:
            messages = [{"role": "user", "content": f"<image>\n{user}" if user else "<image>"}]
            if system:
                messages.insert(0, {"role": "system", "content": system})
            text = tokenizer.apply_chat_template(
                messages, chat_template=TEMPLATES[template], add_generation_prompt=True, tokenize=False
            )
            start, end, context = INTERNVL[:3]
            expected = text.replace("<image>", start + context * 4 * tiles + end, 1)
        cases.append({"template": template, "system": system, "user": user, "tokens": 4 * tiles, "text": expected})
    return cases


def conversations(tokenizer: Qwen2TokenizerFast) -> list[dict]:
    cases = []
    for template, (name, messages), tools in itertools.product(
        ("qwen2_5", "features"), CONVERSATIONS.items(), (None, TOOLS)
    ):
        if template == "features" and (tools or name == "calls"):
            continue
        text = tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=TEMPLATES[template], add_generation_prompt=True, tokenize=False
        )
        cases.append({"template": template, "messages": messages, "tools": tools, "text": text})
    return cases


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    write_tokenizer()
    slow, fast = Qwen2Tokenizer.from_pretrained(OUT), Qwen2TokenizerFast.from_pretrained(OUT)
    cases = tokenised(slow, fast)
    expected = {
        "tokens": cases,
        "legacy_decoded": legacy_decoded(cases),
        "prompts": prompts(fast),
        "conversations": conversations(fast),
    }
    for name, template in TEMPLATES.items():
        write(f"{name}.jinja", template)
    write("expected.json", json.dumps(expected, ensure_ascii=False))
    print(sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()
